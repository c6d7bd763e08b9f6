"""What the tests of kubelet share."""

import os
import shutil
import tempfile

import harness
import static_node


class PodCase(harness.Case):
    """Tests on the shared node. Those that run together with others have their leaks looked for by `Together`."""

    leak_seconds = 60  # kubelet cleans up when it comes by
    alone = False

    def setUp(self):
        self.node = self.the_node()
        if self.alone:
            super().setUp()
        else:
            self.directory = tempfile.mkdtemp(dir=harness.scratch())
            self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        os.chmod(self.directory, 0o777)  # pods with user namespaces reach it too

    def the_node(self):
        return static_node.shared()

    def apply(self, name, spec, **metadata):
        self.node.apply(name, spec, **metadata)
        self.addCleanup(self.node.remove, name)

    def in_directory(self, name="directory"):
        """(volume, mount at /gate): the test's own directory in a container."""
        return {"name": name, "hostPath": {"path": self.directory, "type": "Directory"}}, {"name": name, "mountPath": "/gate"}

    def path(self, name):
        return os.path.join(self.directory, name)

    def lines(self, name):
        """What containers wrote into a file of the test's directory."""
        try:
            with open(self.path(name), encoding="utf-8") as written:
                return written.read().splitlines()
        except FileNotFoundError:
            return []

    def write(self, name, text=""):
        with open(self.path(name), "w", encoding="utf-8") as out:
            out.write(text)

    def wait_ready(self, name):
        self.node.wait(lambda: self.node.ready(name), lambda: f"{name} is ready: {self.node.pod(name)}")

    def wait_log(self, name, container_name, text):
        """Waits for a text in a container's log and returns the log."""

        def look():
            log = self.node.logs(name, container_name)
            return log if text in log else None

        return self.node.wait(look, lambda: f"{text!r} in the log of {container_name}: {self.node.logs(name, container_name)!r}")

    def wait_for_reason(self, name, container_name, state, **wanted):
        """Waits until a container is in a state whose fields are as wanted, or was before it was started again."""

        def look():
            found = self.node.container(name, container_name)
            for where in (found.get("state", {}), found.get("lastState", {})):
                if state in where and all(where[state].get(k) == v for k, v in wanted.items()):
                    return found
            return None

        return self.node.wait(look, lambda: f"{container_name} is {state} with {wanted}: {self.node.container(name, container_name)}")

    def wait_restarted(self, name, container_name, times=1):
        return self.node.wait(lambda: self.node.container(name, container_name).get("restartCount", 0) >= times,
                              lambda: f"{container_name} is started again: {self.node.container(name, container_name)}")

    def wait_phase(self, name, phase):
        def look():
            status = (self.node.pod(name) or {}).get("status", {})
            return status if status.get("phase") == phase else None

        return self.node.wait(look, lambda: f"{name} is {phase}: {self.node.pod(name)}")
