"""Stand-ins for the images that critest names, made from Debian's own programs.

The names are those that critest asks for, below the registry's host: a mirror leads from there to the
test's registry, so names stay canonical. What each needs beyond a shell is said beside it.
"""

import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "images"))
from mkimage import GROUP, PASSWD, busybox_entries  # noqa: E402
from ociimage import Image, directory, file  # noqa: E402

# The hosts in whose place the test's registry answers.
MIRRORED = ("registry.k8s.io", "gcr.io", "k8s.gcr.io")
STAGING = "k8s-staging-cri-tools/"
# critest pulls one image by a digest that is a constant of its source; it is built with this one's instead.
BY_DIGEST = STAGING + "test-image-digest"

PAUSE_SOURCE = """\
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void leave(int signal) { _exit(signal == SIGTERM || signal == SIGINT ? 0 : 1); }
static void reap(int signal) { while (signal && waitpid(-1, 0, WNOHANG) > 0) {} }
int main(void) {
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    signal(SIGCHLD, reap);
    for (;;) pause();
}
"""
# The specs of no_new_privs look for this text.
EFFECTIVE_UID_SOURCE = """\
#include <stdio.h>
#include <unistd.h>
int main(void) { return printf("Effective uid: %d\\n", (int)geteuid()) < 0; }
"""


def compiled(source):
    """A static program's bytes."""
    output = subprocess.run(["mktemp"], capture_output=True, text=True, check=True).stdout.strip()
    try:
        subprocess.run(["gcc", "-O2", "-static", "-s", "-Wl,--build-id=none", "-x", "c", "-", "-o", output],
                       input=source, text=True, check=True)
        with open(output, "rb") as program:
            return program.read()
    finally:
        os.unlink(output)


def read(path):
    with open(path, "rb") as source:
        return source.read()


def shell_entries(passwd=PASSWD, group=GROUP):
    """busybox, and two programs that critest runs and Debian's busybox lacks."""
    entries = [e for e in busybox_entries() if e.path not in ("etc/passwd", "etc/group")]
    return entries + [
        file("etc/passwd", passwd), file("etc/group", group),
        file("bin/ipcs", "#!/bin/sh\nexec cat /proc/sysvipc/shm\n", 0o755),
        file("bin/pgrep", '#!/bin/sh\nexec pidof "$@"\n', 0o755),
    ]


def nginx_entries(program, port):
    """Debian's nginx with its libraries; what it serves is what the specs look for."""
    libraries = re.findall(r"(/\S+\.so\S*)", subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout)
    config = f"""\
daemon off; worker_processes 1; pid /var/run/nginx.pid; error_log stderr notice;
events {{ worker_connections 64; }}
http {{
  access_log /dev/stdout;
  client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
  server {{ listen {port}; location / {{ root /usr/share/nginx/html; index index.html; }} }}
}}
"""
    entries = [file("usr/sbin/nginx", read(program), 0o755)]
    entries += [file(path.lstrip("/"), read(os.path.realpath(path)), 0o755) for path in sorted(set(libraries))]
    return entries + [
        file("etc/nginx/nginx.conf", config), file("etc/nsswitch.conf", "passwd: files\ngroup: files\n"),
        file("usr/share/nginx/html/index.html", "<html><h1>Welcome to nginx!</h1></html>\n"),
        directory("var/log/nginx"), directory("var/lib/nginx"),
    ]


def by_digest():
    return Image([shell_entries(), [file("test-marker", "digest\n")]], {"Cmd": ["sh"]})


def all_images(nginx):
    """{"repository:tag": Image}. `nginx` is the path of Debian's program."""
    shell = shell_entries()
    pause = file("pause", compiled(PAUSE_SOURCE), 0o755)

    def marked(text):
        return Image([shell, [file("test-marker", text + "\n")]], {"Cmd": ["sh"]})

    images = {
        "pause:3.9": Image([[pause]], {"Entrypoint": ["/pause"], "User": "65535:65535"}),
        "e2e-test-images/busybox:1.29-2": Image([shell], {"Cmd": ["sh"]}),
        "e2e-test-images/nginx:1.14-2": Image([shell, nginx_entries(nginx, 80)], {"Cmd": ["nginx"]}),
        "e2e-test-images/httpd:2.4.39-4": Image([shell, [
            file("www/index.html", "<html><body><h1>It works!</h1></body></html>\n"),
            file("usr/local/bin/httpd-foreground",
                 "#!/bin/sh\necho 'httpd: resuming normal operations' >&2\nexec httpd -f -vv -p 80 -h /www\n", 0o755),
        ]], {"Cmd": ["httpd-foreground"]}),
        "e2e-test-images/nonewprivs:1.3": Image([shell, [file("nnp", compiled(EFFECTIVE_UID_SOURCE), 0o4755)]],
                                                {"Entrypoint": ["/nnp"], "User": "1000"}),
        STAGING + "hostnet-nginx-amd64:latest": Image([shell, nginx_entries(nginx, 12003)], {"Cmd": ["nginx"]}),
        STAGING + "test-image-predefined-group:latest": Image([shell_entries(
            PASSWD + "default-user:x:1000:1000::/home/default-user:/bin/sh\n",
            GROUP + "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")], {"Cmd": ["sh"], "User": "1000"}),
        BY_DIGEST + ":test": by_digest(),
    }
    # The sandbox image of runtimes that want one. Another id than 3.9: a spec counts that one's tags and removes it.
    sandbox = Image([[pause]], {"Entrypoint": ["/pause"], "User": "65535:65535", "Labels": {"use": "sandbox"}})
    for tag in ("3.8", "3.10", "3.10.1", "3.10.2"):
        images["pause:" + tag] = sandbox
    for name, user in (("uid", "1002"), ("username", "www-data"), ("uid-group", "1003:users"), ("username-group", "www-data:100")):
        images[f"{STAGING}test-image-user-{name}:latest"] = Image([shell], {"Cmd": ["sh"], "User": user})
    for name in ("latest:latest", "tag:test", "tag:all", "1:latest", "2:latest", "3:latest"):
        images[STAGING + "test-image-" + name] = marked(name)
    tagged = marked("tags")
    for tag in "123":
        images[f"{STAGING}test-image-tags:{tag}"] = tagged
    return images
