// A test double of moat-gofer: reads its plan, then lives until its socket is closed.

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char** argv) {
    int socket = -1, plan = -1;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--socket-fd") == 0) {
            socket = atoi(argv[i + 1]);
        } else if (strcmp(argv[i], "--plan-fd") == 0) {
            plan = atoi(argv[i + 1]);
        }
    }
    char byte;
    if (socket < 0 || read(plan, &byte, 1) != 1 || byte != '{') {
        return 1;
    }
    while (read(socket, &byte, 1) > 0) {
    }
    return 0;
}
