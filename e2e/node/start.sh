#!/bin/bash
# start.sh NAME GROUP DIR: the node, in namespaces and cgroups of its own. Killing this process ends all of it.
#
# NAME: of the node. GROUP: of its cgroups. DIR: its folder, with containerd.toml, cni/, kubelet.yaml and kubeconfig in it.
# The programs of the node are found on the PATH.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# Joined before the cgroup namespace is made, which begins where its first process is. Version 1: one tree for each controller.
# Read before the first one is joined: the file changes with each.
own=$(cat /proc/self/cgroup)
while IFS=: read -r _ controllers path; do
    [ -n "$controllers" ] || continue
    group=/sys/fs/cgroup/${controllers#name=}${path%/}/$2
    mkdir -p "$group"
    if [ "$controllers" = cpuset ]; then
        # A new one is empty, and takes no process as long as it is.
        cat "$group/../cpuset.cpus" > "$group/cpuset.cpus"
        cat "$group/../cpuset.mems" > "$group/cpuset.mems"
        echo 1 > "$group/cgroup.clone_children"
    fi
    echo $$ > "$group/cgroup.procs"
done <<< "$own"
exec unshare --cgroup --net --mount --uts --ipc --pid --fork --kill-child --mount-proc --propagation private bash "$here/init.sh" "$1" "$3"
