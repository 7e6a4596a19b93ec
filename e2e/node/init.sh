#!/bin/bash
# init.sh NAME DIR: process 1 of the node's namespaces. What it mounts and sets here is gone with it.
set -eu
name=$1 dir=$2
hostname "$name"

# containerd and the kubelet share what they mount; the machine sees none of it.
mount --make-rshared /
mount -t tmpfs tmpfs /sys/fs/cgroup
while IFS=: read -r _ controllers _; do
    [ -n "$controllers" ] || continue
    tree=/sys/fs/cgroup/${controllers#name=} options=$controllers
    [ "${controllers#name=}" = "$controllers" ] || options=none,$controllers
    mkdir "$tree"
    mount -t cgroup -o "$options" cgroup "$tree"
done < /proc/self/cgroup
mount -t tmpfs tmpfs /run
for folder in /var/lib /var/log; do
    mkdir -p "$dir$folder"
    mount --bind "$dir$folder" "$folder"
done

# The node's address and that of Service kubernetes, where the harness listens for the API server: there is no kube-proxy.
ip link set lo up
ip address add 10.89.0.1/32 dev lo
ip address add 10.96.0.1/32 dev lo
echo 1 > /proc/sys/net/ipv4/ip_forward

containerd --config "$dir/containerd.toml" >> "$dir/containerd.log" 2>&1 &

# The kubelet sets sysctls of the whole machine. In a mount namespace of its own it finds them as it wants them, and cannot write.
# That namespace stays a peer of ours, so that containerd sees the volumes that the kubelet mounts.
# shellcheck disable=SC2016 # Its own arguments, not ours.
covered='
    mount --make-rprivate /proc
    for sysctl in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
        kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
        file=$1/sysctl/${sysctl%=*}
        mkdir -p "${file%/*}"
        echo "${sysctl#*=}" > "$file"
        mount --bind "$file" "/proc/sys/${sysctl%=*}"
        mount -o remount,bind,ro "/proc/sys/${sysctl%=*}"
    done
    exec kubelet --config="$1/kubelet.yaml" --kubeconfig="$1/kubeconfig" --node-ip=10.89.0.1 --hostname-override="$2" --v=2'
# It gives up when containerd does not answer yet, and whoever ends it wants to see it come back.
while true; do
    unshare --mount --propagation unchanged bash -euc "$covered" kubelet "$dir" "$name" >> "$dir/kubelet.log" 2>&1 || true
    sleep 0.2
done
