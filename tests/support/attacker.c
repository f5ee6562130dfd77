/* Rearranges a folder as fast as it can, or takes names there as soon as they are free.
 *
 * FOLDER exchange A B        exchange two names, for ever
 * FOLDER mount SOURCE TARGET  mount one folder over the other, and unmount it, for ever
 * FOLDER replace NAME        for each line "TIME" wait until then, replace NAME by a file of ours,
 * FOLDER take NAME           or make it as soon as it is free; say "r"; at the next line remove it, and
 *                            say what had become of it until then ("kept", "moved" or "removed")
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void spin_until(long long nanoseconds)
{
    while (now() < nanoseconds)
        ;
}

static void say(const char *word)
{
    printf("%s\n", word);
    fflush(stdout);
}

int main(int count, char **words)
{
    char line[64];
    const char *mode = words[2], *name = words[3];
    if (count < 4 || chdir(words[1]))
        return 1;
    while (!strcmp(mode, "exchange"))
        renameat2(AT_FDCWD, name, AT_FDCWD, words[4], RENAME_EXCHANGE);
    while (!strcmp(mode, "mount"))
        if (!mount(name, words[4], NULL, MS_BIND, NULL)) {
            spin_until(now() + 100000);
            umount2(words[4], MNT_DETACH);
        }
    while (fgets(line, sizeof line, stdin)) {
        struct stat ours, there;
        const char *fate = "kept";
        int fd;
        spin_until(atoll(line));
        if (!strcmp(mode, "replace")) {
            fd = open("new", O_CREAT | O_EXCL | O_RDWR, 0600);
            rename("new", name);
        } else {
            while ((fd = open(name, O_CREAT | O_EXCL | O_RDWR, 0600)) < 0)
                ;
        }
        say("r");
        if (!fgets(line, sizeof line, stdin) || fstat(fd, &ours))
            return 1;
        if (!ours.st_nlink)
            fate = "removed";
        else if (lstat(name, &there) || there.st_ino != ours.st_ino)
            fate = "moved";
        unlink(name);
        close(fd);
        say(fate);
    }
    return 0;
}
