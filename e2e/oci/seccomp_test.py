"""linux.seccomp of config.json: what a profile forbids, for the first process and for exec'ed ones."""

import json
import os
import unittest

import oci

only_moat = unittest.skipIf(oci.IS_RUNC, "runc words its errors in its own way")


def profile(*rules, default="SCMP_ACT_ALLOW", **more):
    return {"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": list(rules), **more}


def rule(action, *names, **more):
    return {"names": list(names), "action": action, **more}


class Seccomp(oci.OciCase):
    def confined(self, seccomp, script, **more):
        """A bundle whose shell runs `script` under the profile."""
        container = self.bundle(["/bin/sh", "-c", script], **more)
        path = os.path.join(self.path_of(container), "config.json")
        with open(path, encoding="utf-8") as source:
            config = json.load(source)
        config["linux"]["seccomp"] = seccomp
        with open(path, "w", encoding="utf-8") as out:
            json.dump(config, out)
        return container

    def run_confined(self, seccomp, script):
        return self.run_container(self.confined(seccomp, script))

    def test_a_forbidden_call_fails_with_the_errno_of_the_profile(self):
        done = self.run_confined(profile(rule("SCMP_ACT_ERRNO", "mkdir", "mkdirat", errnoRet=18)), "mkdir /tmp/x; echo $?")
        self.assertEqual(done.stdout, "1\n", done.stderr)
        self.assertIn("Invalid cross-device link", done.stderr)

    def test_eperm_is_what_an_errno_action_without_a_number_means(self):
        done = self.run_confined(profile(rule("SCMP_ACT_ERRNO", "chmod", "fchmodat", "fchmodat2")), "touch /tmp/x; chmod 700 /tmp/x; echo $?")
        self.assertEqual(done.stdout, "1\n", done.stderr)
        self.assertIn("Operation not permitted", done.stderr)

    def test_arguments_decide(self):
        # kill(2) with signal 10 is refused, others are not.
        done = self.run_confined(profile(rule("SCMP_ACT_ERRNO", "kill", args=[{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}])),
                                 "sleep 100 & kill -10 $! 2>/dev/null || echo refused; kill -9 $! && echo killed")
        self.assertEqual(done.stdout, "refused\nkilled\n", done.stderr)

    def test_conditions_on_one_argument_are_alternatives(self):
        both = [{"index": 1, "value": signal, "op": "SCMP_CMP_EQ"} for signal in (10, 12)]
        done = self.run_confined(profile(rule("SCMP_ACT_ERRNO", "kill", args=both)),
                                 "sleep 100 & for s in 10 12 9; do kill -$s $! 2>/dev/null && echo $s; done; true")
        self.assertEqual(done.stdout, "9\n", done.stderr)

    def test_a_kill_action_ends_the_process_with_sigsys(self):
        done = self.run_confined(profile(rule("SCMP_ACT_KILL_PROCESS", "mkdir", "mkdirat")), "mkdir /tmp/x; echo $?")
        self.assertEqual(done.stdout, f"{128 + 31}\n", done.stderr)

    def test_the_status_file_shows_the_filter(self):
        done = self.run_confined(profile(rule("SCMP_ACT_ERRNO", "mkdir")), "grep ^Seccomp: /proc/self/status")
        self.assert_clean(done, "Seccomp:\t2\n")

    def test_no_profile_no_filter(self):
        self.assert_clean(self.run_shell("grep ^Seccomp: /proc/self/status"), "Seccomp:\t0\n")

    def test_unknown_names_are_left_out(self):
        self.assert_clean(self.run_confined(profile(rule("SCMP_ACT_ERRNO", "no_such_call_ever", "mkdir")), "echo fine"), "fine\n")

    def test_an_allow_list_with_a_forbidding_default(self):
        allowed = rule("SCMP_ACT_ALLOW", *ALLOWED)
        done = self.run_confined(profile(allowed, default="SCMP_ACT_ERRNO"), "echo in; mkdir /tmp/x 2>/dev/null || echo forbidden")
        self.assert_clean(done, "in\nforbidden\n")

    def test_exec_is_confined_like_the_first_process(self):
        container = self.confined(profile(rule("SCMP_ACT_ERRNO", "mkdir", "mkdirat")), "sleep 1000")
        self.assertEqual(self.create(container)[0], 0)
        self.assertEqual(self.runtime.call("start", container).returncode, 0)
        done = self.runtime.call("exec", container, "/bin/sh", "-c", "mkdir /tmp/x; grep ^Seccomp: /proc/self/status")
        self.assertEqual(done.stdout, "Seccomp:\t2\n", done.stderr)
        self.assertIn("Operation not permitted", done.stderr)

    def test_bad_profiles_are_refused(self):
        for bad, word in (
            (profile(default="SCMP_ACT_PERHAPS"), "defaultAction"),
            (profile(rule("SCMP_ACT_MAYBE", "mkdir")), "action"),
            (profile(rule("SCMP_ACT_ERRNO", "mkdir", args=[{"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}])), "index"),
            (profile(rule("SCMP_ACT_ERRNO", "mkdir", args=[{"index": 0, "value": 0, "op": "SCMP_CMP_ALIKE"}])), "op"),
            (profile(flags=["SECCOMP_FILTER_FLAG_UNHEARD_OF"]), "flags"),
        ):
            done = self.run_confined(bad, "true")
            self.assert_refused(done, *(() if oci.IS_RUNC else (word,)))

    @only_moat
    def test_user_notification_is_refused_by_name(self):
        self.assert_refused(self.run_confined(profile(rule("SCMP_ACT_NOTIFY", "mkdir")), "true"), "SCMP_ACT_NOTIFY")
        self.assert_refused(self.run_confined(profile(listenerPath="/run/agent.sock"), "true"), "listenerPath")

    def test_a_profile_of_a_thousand_rules(self):
        rules = [rule("SCMP_ACT_ERRNO", "ioctl", args=[{"index": 1, "value": 100000 + n, "op": "SCMP_CMP_EQ"}]) for n in range(500)]
        self.assert_clean(self.run_confined(profile(*rules), "echo fine"), "fine\n")

    @only_moat
    def test_features_tell_the_actions(self):
        features = json.loads(self.runtime.call("features").stdout)
        self.assertTrue(features["linux"]["seccomp"]["enabled"])
        self.assertIn("SCMP_ACT_LOG", features["linux"]["seccomp"]["actions"])


# What a shell and its tools need to say something and to start programs.
ALLOWED = [
    "access", "arch_prctl", "brk", "capget", "capset", "chdir", "clone", "clone3", "close", "close_range", "dup", "dup2", "dup3", "epoll_create1",
    "epoll_ctl", "epoll_pwait", "execve", "exit", "exit_group", "faccessat", "faccessat2", "fcntl", "fstat", "fstatfs", "futex", "getcwd",
    "getdents64", "getegid", "geteuid", "getgid", "getpgrp", "getpid", "getppid", "getrandom", "gettid", "getuid", "ioctl", "lseek", "lstat",
    "mmap", "mprotect", "mremap", "munmap", "nanosleep", "newfstatat", "open", "openat", "pipe", "pipe2", "poll", "prctl", "pread64", "prlimit64",
    "read", "readlink", "readlinkat", "rseq", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sendmsg", "set_robust_list", "set_tid_address",
    "setgid", "setgroups", "setuid", "stat", "statx", "tgkill", "umask", "uname", "vfork", "fork", "wait4", "write", "writev", "sched_yield",
    "rt_sigsuspend", "sched_getaffinity", "getpgid", "setpgid", "fchown", "fchdir", "keyctl", "statfs", "mknodat", "unlinkat", "madvise", "kill",
]
