#!/bin/bash
# The first process of the guest: mounts, loads modules, runs the stories of /vm/plan one by one, and powers off. Lines
# that begin with "@@ " are for the host; it reads them from the console.
export PATH=/bin:/sbin LD_LIBRARY_PATH=/lib/x86_64-linux-gnu HOME=/root TMPDIR=/tmp RUST_BACKTRACE=0
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox mount -t bpf bpf /sys/fs/bpf
busybox mount -t tmpfs -o mode=0755 run /run
busybox mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p /run/netns /run/wireguard /dev/net
. /vm/environment
say() { printf '@@ %s\n' "$*"; }
milliseconds() { echo $(( ${EPOCHREALTIME/./} / 1000 )); }

say kernel "$(uname -r)"
while read -r module; do
  busybox insmod "/vm/modules/$module.ko" || say broken "the module $module can't be loaded"
done </vm/modules/order
ip link set lo up
if ip link add wgprobe type wireguard; then
  ip link del wgprobe
  say fact wireguard in-kernel
else
  say broken "the kernel makes no WireGuard interface"
fi

while read -r suite story patience; do
  say begin "$suite" "$story"
  start=$(milliseconds)
  timeout -s KILL "$patience" "/vm/tests/$suite" --exact "$story" --test-threads=1 --nocapture >/tmp/story 2>&1 </dev/null
  status=$?
  took=$(( $(milliseconds) - start ))
  # A story that was not run at all ends with success too.
  if [ "$status" -eq 0 ] && grep -q '^test result: ok. 1 passed' /tmp/story; then
    result=passed
  elif [ "$status" -eq 137 ]; then
    result=hung
  else
    result=failed
  fi
  rung=$(grep -o 'attach rung: [a-z]*' /tmp/story | tail -n 1)
  [ -z "$rung" ] || say fact rung "${rung#attach rung: }"
  [ "$result" = passed ] || tail -c 6000 /tmp/story | sed 's/^/@@ output /'
  say end "$suite" "$story" "$result" "$took"
done </vm/plan
say done
poweroff -f
