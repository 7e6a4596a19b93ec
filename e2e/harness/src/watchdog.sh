# Ends every process of a harness that is gone, however it went (exit, panic, Ctrl-C, SIGKILL): the harness holds the
# other end of our standard input, and the kernel closes it. A process that the harness has not reaped keeps its number,
# so no stranger can be hit.
trap '' INT TERM HUP QUIT
pids=
dirs=
while read -r verb rest; do
    case $verb in
    started) pids="$pids $rest" ;;
    ended)
        left=
        for pid in $pids; do [ "$pid" = "$rest" ] || left="$left $pid"; done
        pids=$left
        ;;
    remove) dirs="$dirs$rest
" ;;
    keep)
        left=
        while IFS= read -r dir; do
            [ -z "$dir" ] || [ "$dir" = "$rest" ] || left="$left$dir
"
        done <<LIST
$dirs
LIST
        dirs=$left
        ;;
    esac
done
for pid in $pids; do kill -KILL "$pid" 2>/dev/null; done
for pid in $pids; do
    tries=0
    while kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 50 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
done
while IFS= read -r dir; do
    case $dir in
    '') ;;
    # Cgroups hold files that cannot be removed; they go with their folders, the inner ones first.
    /sys/fs/cgroup/*)
        tries=0
        while [ -d "$dir" ] && [ "$tries" -lt 50 ]; do
            find "$dir" -depth -type d -exec rmdir {} \; 2>/dev/null
            [ ! -d "$dir" ] || sleep 0.1
            tries=$((tries + 1))
        done
        ;;
    *) rm -rf -- "$dir" ;;
    esac
done <<LIST
$dirs
LIST
