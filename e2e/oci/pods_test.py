"""A pod by annotations, as a CRI runtime sends it: containers that join one sandbox, with a shared volume."""

import os
import unittest

import harness
import host
import oci


@unittest.skipIf(oci.IS_RUNC, "runc does not know pods")
class Pod(oci.OciCase):
    def sandbox(self, arguments=("/bin/sleep", "1000"), prefix="io.kubernetes.cri.", **more):
        name = "container-type" if prefix == "io.kubernetes.cri." else "ContainerType"
        container = self.new_id("pod")
        self.bundle(list(arguments), container_id=container, annotations={prefix + name: "sandbox"}, **more)
        status, error = self.create(container)
        self.assertEqual(status, 0, error)
        self.assert_clean(self.runtime.call("start", container))
        return container

    def member(self, sandbox, arguments, prefix="io.kubernetes.cri.", start=True, **more):
        kind, where = ("container-type", "sandbox-id") if prefix == "io.kubernetes.cri." else ("ContainerType", "SandboxID")
        container = self.bundle(list(arguments), annotations={prefix + kind: "container", prefix + where: sandbox}, **more)
        out = os.path.join(self.directory, container + ".out")
        with open(out, "wb") as log:
            status, error = self.create(container, stdout=log)
        self.assertEqual(status, 0, error)
        if start:
            self.assert_clean(self.runtime.call("start", container))
        return container, out

    def empty_dir(self):
        """As kubelet makes an emptyDir and a CRI runtime passes it on: a bind mount of a directory of the pod's."""
        path = os.path.join(self.directory, "volumes", "kubernetes.io~empty-dir", "shared")
        os.makedirs(path, exist_ok=True)
        return {"destination": "/shared", "type": "bind", "source": path, "options": ["rbind", "rw"]}

    def test_two_containers_share_a_volume(self):
        volume = self.empty_dir()
        sandbox = self.sandbox()
        writer, _ = self.member(sandbox, ["/bin/sh", "-c", "echo from one > /shared/.new; mv /shared/.new /shared/note; sleep 1000"], mounts=[volume])
        _, out = self.member(sandbox, ["/bin/sh", "-c", "while [ ! -e /shared/note ]; do usleep 1000; done; cat /shared/note"], mounts=[volume])
        host.wait_for(lambda: host.read(out) == "from one\n", 20, lambda: f"the note: {host.read(out)!r}")
        self.assertEqual(self.runtime.state_of(writer)["status"], "running")

    def test_one_sentry_for_all_and_a_gofer_each(self):
        old = host.by_comm("moat-sentry", "moat-gofer")
        sandbox = self.sandbox()
        sentries = [p for p in host.by_comm("moat-sentry") if p not in old]
        gofers = len([p for p in host.by_comm("moat-gofer") if p not in old])
        self.member(sandbox, ["/bin/sleep", "1000"])
        self.member(sandbox, ["/bin/sleep", "1000"])
        self.assertEqual([p for p in host.by_comm("moat-sentry") if p not in old], sentries)
        self.assertEqual(len([p for p in host.by_comm("moat-gofer") if p not in old]), gofers + 2)

    def test_containers_have_their_own_root_and_pid_namespace(self):
        sandbox = self.sandbox()
        one, _ = self.member(sandbox, ["/bin/sh", "-c", "echo 1 > /mine; sleep 1000"])
        two, out = self.member(sandbox, ["/bin/sh", "-c", "ls /mine 2>&1; echo $$; sleep 1000"])
        host.wait_for(lambda: host.read(out).endswith("1\n"), 20, lambda: host.read(out))
        self.assertIn("No such file", host.read(out))
        self.assertNotIn("mine", self.runtime.call("exec", two, "/bin/ls", "/").stdout)
        self.assert_clean(self.runtime.call("exec", one, "/bin/cat", "/mine"), "1\n")

    def test_containers_share_system_v_objects_and_message_queues(self):
        sandbox = self.sandbox()
        shared = [{"type": t} for t in ("pid", "network", "uts", "mount")] + [{"type": "ipc", "path": "/proc/1/ns/ipc"}]
        script = "ipcs -m | grep -c 0x; ls /dev/mqueue; ipcs -l -m | grep -c 4096"
        maker, out = self.member(sandbox, ["/bin/sh", "-c", "ipcmk -M 10000 >/dev/null && touch /dev/mqueue/queue && echo made; sleep 1000"],
                                 root=harness.debian_root(), namespaces=shared)
        host.wait_for(lambda: host.read(out) == "made\n", 20, lambda: f"the maker: {host.read(out)!r}")
        _, seen = self.member(sandbox, ["/bin/sh", "-c", script], root=harness.debian_root(), namespaces=shared)
        host.wait_for(lambda: host.read(seen) == "1\nqueue\n1\n", 20, lambda: f"beside it: {host.read(seen)!r}")
        # One that asks for a namespace of its own has it to itself.
        _, alone = self.member(sandbox, ["/bin/sh", "-c", script + "; true"], root=harness.debian_root())
        host.wait_for(lambda: host.read(alone) == "0\n1\n", 20, lambda: f"alone: {host.read(alone)!r}")
        # What was made stays while the pod does.
        self.assert_clean(self.runtime.call("delete", "--force", maker))
        _, later = self.member(sandbox, ["/bin/sh", "-c", script], root=harness.debian_root(), namespaces=shared)
        host.wait_for(lambda: host.read(later) == "1\nqueue\n1\n", 20, lambda: f"later: {host.read(later)!r}")

    def test_containers_share_the_network(self):
        sandbox = self.sandbox()
        server, _ = self.member(sandbox, ["/bin/sh", "-c", "mkdir /www; echo page > /www/index.html; exec httpd -f -p 127.0.0.1:8080 -h /www"])
        client, out = self.member(sandbox, ["/bin/sh", "-c", "until wget -q -O - http://127.0.0.1:8080/ 2>/dev/null; do usleep 10000; done"])
        host.wait_for(lambda: host.read(out) == "page\n", 20, lambda: f"the page: {host.read(out)!r}")
        self.wait_for_state(client, "stopped")
        self.assertEqual(self.runtime.state_of(server)["status"], "running")

    def test_a_containers_end_leaves_the_pod(self):
        sandbox = self.sandbox()
        short, _ = self.member(sandbox, ["/bin/true"])
        long, _ = self.member(sandbox, ["/bin/sleep", "1000"])
        self.wait_for_state(short, "stopped")
        self.assert_clean(self.runtime.call("delete", short))
        self.assert_clean(self.runtime.call("exec", long, "/bin/echo", "lives"), "lives\n")
        self.assertEqual(self.runtime.state_of(sandbox)["status"], "running")

    def test_a_containers_cgroup_holds_its_guests(self):
        sandbox = self.sandbox()
        container, _ = self.member(sandbox, ["/bin/sh", "-c", "sleep 1001 & sleep 1002 & wait"], resources={"pids": {"limit": 100}})
        groups = [g for g in host.cgroups_below(oci.harness.cgroup()) if os.path.basename(g) == container]
        self.assertTrue(groups, host.cgroups_below(oci.harness.cgroup()))
        host.wait_for(lambda: all(len(host.read(os.path.join(g, "cgroup.procs")).split()) >= 3 for g in groups), 20,
                      lambda: {g: host.read(os.path.join(g, "cgroup.procs")).split() for g in groups})

    def test_a_container_of_no_sandbox_is_refused(self):
        container = self.bundle(["/bin/true"], annotations={"io.kubernetes.cri.container-type": "container",
                                                            "io.kubernetes.cri.sandbox-id": "no-such-sandbox"})
        self.assert_refused(self.run_container(container), "no-such-sandbox")

    def test_the_annotations_of_cri_o_are_known(self):
        prefix = "io.kubernetes.cri-o."
        old = host.by_comm("moat-sentry")
        sandbox = self.sandbox(prefix=prefix)
        _, out = self.member(sandbox, ["/bin/sh", "-c", "echo joined; sleep 1000"], prefix=prefix)
        host.wait_for(lambda: host.read(out) == "joined\n", 20, lambda: host.read(out))
        self.assertEqual(len([p for p in host.by_comm("moat-sentry") if p not in old]), 1)

    def test_twenty_containers_join_at_once(self):
        sandbox = self.sandbox()
        outs = [self.member(sandbox, ["/bin/sh", "-c", f"echo {n}; sleep 1000"])[1] for n in range(20)]
        for number, out in enumerate(outs):
            host.wait_for(lambda out=out, number=number: host.read(out) == f"{number}\n", 30, lambda out=out: host.read(out))
        table = self.runtime.call("list", "--format", "json").stdout
        self.assertEqual(table.count('"running"'), 21, table)

    def test_a_crashing_container_spares_its_neighbour(self):
        sandbox = self.sandbox()
        neighbour, _ = self.member(sandbox, ["/bin/sleep", "1000"])
        for _ in range(5):
            crashing, _ = self.member(sandbox, ["/bin/sh", "-c", "kill -SEGV $$; sleep 1000"], start=False)
            self.runtime.call("start", crashing)
            self.runtime.call("kill", crashing, "KILL")
            self.wait_for_state(crashing, "stopped")
        self.assert_clean(self.runtime.call("exec", neighbour, "/bin/echo", "lives"), "lives\n")
