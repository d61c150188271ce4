#!/bin/bash
# lab.sh: Debian hosts on this machine, each with systemd as PID 1, a disk, an
# address and sshd of its own, for the tests of test/hosts. The Go package beside
# it drives it; by hand it needs the same environment at every call.
#
#   lab.sh up HOST...          make the hosts that are missing, boot all of them
#   lab.sh down                end all hosts and remove all but the cache
#   lab.sh start|stop HOST     boot; shut down in order
#   lab.sh kill HOST           cut the power: what was not synced is lost
#   lab.sh partition A,B C,D   drop every frame between the two sets, both ways
#   lab.sh heal                end all partitions
#   lab.sh status              a line for each host: name, address, kind, state
#   lab.sh console HOST        what its console has shown
#
# LAB_DIR is the state, LAB_CACHE holds base systems and Debian packages between
# runs. LAB_BRIDGE and LAB_NET (three octets of a /24) keep two labs apart, and
# so must the hosts' names. LAB_KIND=nspawn|qemu counts for hosts made by `up`:
# nspawn shares this machine's kernel and boots in a second; qemu has a kernel
# and cgroup v2 of its own and boots in a quarter of a minute and more. LAB_PACKAGES
# names more packages of the base system, with commas between.
set -euo pipefail

LAB_DIR=$(readlink -m "${LAB_DIR:?is where the hosts are kept}")
LAB_CACHE=$(readlink -m "${LAB_CACHE:?is where base systems are kept}")
LAB_BRIDGE=${LAB_BRIDGE:-gpuqe2e0}
LAB_NET=${LAB_NET:-10.213.97}
LAB_PORT=${LAB_PORT:-3172} # of the proxy for packages
LAB_KIND=${LAB_KIND:-nspawn}
LAB_DISK=${LAB_DISK:-6G} # sparse
LAB_MEMORY=${LAB_MEMORY:-1G} # of a qemu host
LAB_PATIENCE=${LAB_PATIENCE:-300} # seconds, for a boot

gateway=$LAB_NET.1
table=${LAB_BRIDGE//[^a-z0-9]/_} # of nftables
self=$(readlink -f "$0")
packages=systemd,systemd-sysv,dbus,udev,kmod,libpam-systemd,openssh-server,iproute2,ca-certificates,netbase,procps,python3-minimal${LAB_PACKAGES:+,$LAB_PACKAGES}

say() { printf 'lab: %s\n' "$*" >&2; }
die() {
	say "$@"
	exit 1
}

hosts() { ls "$LAB_DIR/hosts" 2>/dev/null || true; }
kind() { cat "$LAB_DIR/hosts/$1/kind"; }
address() { cat "$LAB_DIR/hosts/$1/address"; }
on() { # on HOST COMMAND: through its sshd, as root
	local host=$1
	shift
	ssh -F "$LAB_DIR/ssh/config" "root@$host" -- "$@"
}
known() {
	if [ -z "${1:-}" ] || [ ! -d "$LAB_DIR/hosts/$1" ]; then die "there is no host ${1:-without a name}"; fi
}
release() { sed -n "s/^$1=//p" /etc/os-release | tr -d '"'; }

# alive FILE: the process whose ID is in FILE is there and is of this lab.
alive() {
	local pid
	pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] &&
		tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$LAB_DIR/"
}

# ---- this machine ----

# check refuses a machine on which no host could be booted, with every reason.
check() {
	local bad=0 program
	complain() {
		say "$@"
		bad=1
	}
	[ "$(id -u)" = 0 ] || complain "this needs root: namespaces, loop devices and a bridge are made"
	[ "$(release ID)" = debian ] || complain "this machine is not Debian, whose own apt the hosts are made from"
	for program in mmdebstrap systemd-nspawn nft ssh ssh-keygen apt-cacher-ng ip mkfs.ext4 python3 pgrep setpriv unshare; do
		PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || complain "$program is missing: make deps/hosts installs it"
	done
	[ "$LAB_KIND" != qemu ] || command -v qemu-system-x86_64 >/dev/null || complain "qemu-system-x86_64 is missing: make deps/hosts installs it"
	grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || complain "the kernel has no overlayfs"
	[ -e /dev/loop-control ] || complain "there is no /dev/loop-control: loop devices are needed"
	[ $bad = 0 ] || exit 1
}

network() { # a bridge without a way out: hosts reach each other and this machine
	ip link show "$LAB_BRIDGE" >/dev/null 2>&1 || ip link add "$LAB_BRIDGE" type bridge ||
		die "the bridge $LAB_BRIDGE cannot be made: no right to change the network?"
	ip addr replace "$gateway/24" dev "$LAB_BRIDGE"
	ip link set "$LAB_BRIDGE" up
	nft list table bridge "$table" >/dev/null 2>&1 ||
		nft "add table bridge $table; add chain bridge $table cut { type filter hook forward priority 0; policy accept; }" ||
		die "nftables cannot filter on a bridge here"
}

# proxy fetches each Debian package once, through whatever this machine's own
# apt goes through.
proxy() {
	local upstream
	! alive "$LAB_DIR/proxy/pid" || return 0
	upstream=$(apt-config dump --format '%v' Acquire::http::Proxy)
	mkdir -p "$LAB_DIR/proxy"/{conf,log} "$LAB_CACHE/packages"
	printf '%s\n' "ForeGround: 1" "Port: $LAB_PORT" "BindAddress: $gateway" "CacheDir: $LAB_CACHE/packages" \
		"LogDir: $LAB_DIR/proxy/log" "ExThreshold: 30" ${upstream:+"Proxy: $upstream"} >"$LAB_DIR/proxy/conf/lab.conf"
	reachable "$LAB_CACHE/packages" && reachable "$LAB_DIR/proxy/conf"
	chown -R apt-cacher-ng: "$LAB_DIR/proxy" "$LAB_CACHE/packages"
	setsid setpriv --reuid apt-cacher-ng --regid apt-cacher-ng --clear-groups \
		/usr/sbin/apt-cacher-ng -c "$LAB_DIR/proxy/conf" </dev/null >"$LAB_DIR/proxy/out" 2>&1 &
	echo $! >"$LAB_DIR/proxy/pid"
	for _ in $(seq 100); do
		(exec 3<>"/dev/tcp/$gateway/$LAB_PORT") 2>/dev/null && return
		sleep 0.1
	done
	die "the proxy for packages does not answer: $(tail -n 3 "$LAB_DIR/proxy/out")"
}

# reachable DIR: another user can get there. Homes and temporary directories of
# root are closed by default.
reachable() {
	setpriv --reuid apt-cacher-ng --regid apt-cacher-ng --clear-groups test -x "$1" ||
		die "the user apt-cacher-ng cannot reach $1: let GPUQ_LAB_CACHE and TMPDIR name directories that others may pass through"
}

# base makes the system that the hosts of a kind begin with: for nspawn a
# directory that all share and none writes to, for qemu an image to copy.
base() {
	local include=$packages dir
	dir=$(base_path)
	[ ! -e "$dir.ok" ] || return 0
	[ "$LAB_KIND" = nspawn ] || include+=,linux-image-cloud-amd64,initramfs-tools
	say "making the base system for $LAB_KIND hosts, which is kept in $LAB_CACHE"
	[ -n "$(sources)" ] || apt-get update -qq
	sources >"$LAB_DIR/sources.list"
	[ -s "$LAB_DIR/sources.list" ] || die "this machine's apt has no sources of Debian"
	rm -rf "$dir"
	mkdir -p "$dir"
	http_proxy=http://$gateway:$LAB_PORT mmdebstrap --variant=minbase --include="$include" \
		"$(release VERSION_CODENAME)" "$dir" "$LAB_DIR/sources.list" >"$dir.log" 2>&1 ||
		die "mmdebstrap: $(tail -n 5 "$dir.log")"
	# Each host gets its own of these; names come from /etc/hosts alone.
	rm -f "$dir"/etc/{machine-id,hostname,ssh/ssh_host_*} "$dir/var/lib/dbus/machine-id"
	: >"$dir/etc/resolv.conf"
	echo 'APT::Periodic::Enable "0";' >"$dir/etc/apt/apt.conf.d/90lab-no-timers"
	chroot "$dir" systemctl enable -q systemd-networkd ssh
	chroot "$dir" systemctl mask -q systemd-networkd-wait-online apt-daily.timer apt-daily-upgrade.timer
	# PID 1 of an nspawn host: nspawn mounts the controllers of cgroup v1 read-only,
	# and without them limits and DeviceAllow= would be accepted and do nothing.
	cat >"$dir/sbin/lab-init" <<-'SCRIPT'
		#!/bin/sh
		mount -o remount,rw /sys/fs/cgroup 2>/dev/null
		for dir in /sys/fs/cgroup/*/; do mount -o remount,bind,rw "$dir" 2>/dev/null; done
		exec /lib/systemd/systemd
	SCRIPT
	chmod +x "$dir/sbin/lab-init"
	[ "$LAB_KIND" = nspawn ] || base_image "$dir"
	touch "$dir.ok"
}

base_image() {
	cp "$1"/boot/vmlinuz-* "$LAB_CACHE/vmlinuz"
	cp "$1"/boot/initrd.img-* "$LAB_CACHE/initrd"
	echo '/dev/vda / ext4 defaults 0 1' >"$1/etc/fstab"
	rm -f "$1.img"
	truncate -s "$LAB_DISK" "$1.img"
	mkfs.ext4 -q -F -d "$1" "$1.img"
	rm -rf "$1"
}

# base_path names the base after all that it is made from.
base_path() { echo "$LAB_CACHE/$LAB_KIND-$({ echo "$packages $LAB_DISK" && sed -n '/^base() {/,/^}/p' "$self"; } | sha256sum | cut -c1-12)"; }

# sources are this machine's own, as far as they are Debian's.
sources() {
	# shellcheck disable=SC2016 # apt-get expands them
	apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' | sort -u
}

# ---- a host ----

create() {
	local host=$1 dir=$LAB_DIR/hosts/$1 last=11
	[ ! -e "$dir/address" ] || return 0
	[[ $host =~ ^[a-z][a-z0-9-]{0,11}$ ]] || die "$host is no name for a host: a letter, then letters, digits and dashes, 12 in all"
	while grep -qsx "$LAB_NET.$last" "$LAB_DIR"/hosts/*/address; do last=$((last + 1)); done
	rm -rf "$dir"
	mkdir -p "$dir"/{disk,root}
	echo "$LAB_KIND" >"$dir/kind"
	base_path >"$dir/base"
	tr -d - </proc/sys/kernel/random/uuid >"$dir/machine-id"
	if [ "$LAB_KIND" = qemu ]; then
		cp --sparse=always "$(base_path).img" "$dir/disk.img"
	else
		truncate -s "$LAB_DISK" "$dir/disk.img"
		mkfs.ext4 -q -F "$dir/disk.img"
	fi
	ssh-keygen -q -t ed25519 -N '' -C "$host" -f "$dir/hostkey"
	echo "$host $(cut -d' ' -f1,2 "$dir/hostkey.pub")" >>"$LAB_DIR/ssh/known_hosts"
	unshare -m "$self" identify "$host" "$LAB_NET.$last"
	echo "$LAB_NET.$last" >"$dir/address"
}

# attach mounts a host's disk, in a mount namespace of the caller's own: nobody
# else, above all no other host, keeps it busy when the host has died.
attach() {
	local dir=$LAB_DIR/hosts/$1
	for _ in $(seq 100); do # the last reference of one that has just died
		[ -n "$(losetup -j "$dir/disk.img")" ] || break
		sleep 0.1
	done
	if [ "$(kind "$1")" = qemu ]; then
		mount -o loop "$dir/disk.img" "$dir/root"
		return
	fi
	mount -o loop "$dir/disk.img" "$dir/disk"
	mkdir -p "$dir/disk"/{upper,work}
	mount -t overlay "$LAB_BRIDGE-$1" -o "lowerdir=$(cat "$dir/base"),upperdir=$dir/disk/upper,workdir=$dir/disk/work" "$dir/root"
}

# identify HOST ADDRESS writes who it is to its disk. In a mount namespace.
identify() {
	local host=$1 dir=$LAB_DIR/hosts/$1 root=$LAB_DIR/hosts/$1/root
	attach "$host"
	cp "$dir/machine-id" "$root/etc/machine-id"
	echo "$host" >"$root/etc/hostname"
	printf '127.0.0.1 localhost %s\n::1 localhost\n' "$host" >"$root/etc/hosts"
	echo "Acquire::http::Proxy \"http://$gateway:$LAB_PORT\";" >"$root/etc/apt/apt.conf.d/90lab-proxy"
	printf '%s\n' '[Match]' 'Name=host0 eth0' '[Network]' "Address=$2/24" LinkLocalAddressing=no IPv6AcceptRA=no \
		>"$root/etc/systemd/network/10-lab.network"
	install -d -m 700 "$root/root/.ssh"
	install -m 600 "$LAB_DIR/ssh/id.pub" "$root/root/.ssh/authorized_keys"
	mkdir -p "$root/var/log/journal" # kept over a reboot
	install -m 600 "$dir/hostkey" "$root/etc/ssh/ssh_host_ed25519_key"
	cp "$dir/hostkey.pub" "$root/etc/ssh/ssh_host_ed25519_key.pub"
}

boot() {
	local dir=$LAB_DIR/hosts/$1
	! alive "$dir/pid" || return 0
	if [ "$(kind "$1")" = qemu ]; then
		boot_qemu "$1"
	else
		setsid unshare -m "$self" boot_nspawn "$1" "$LAB_DIR/" </dev/null >>"$dir/console" 2>&1 &
	fi
	for _ in $(seq 150); do
		! alive "$dir/pid" || return 0
		sleep 0.1
	done
	die "$1 does not start: $(tail -n 5 "$dir/console")"
}

# hierarchies lists the cgroup trees in which a host gets a place of its own.
# systemd does not touch cpuset.
hierarchies() {
	findmnt -rno TARGET -t cgroup,cgroup2 | grep -x -e '/sys/fs/cgroup' -e '/sys/fs/cgroup/[a-z,_]*' | grep -v cpuset || true
}

# boot_nspawn is the process that holds a host; it ends when the host has. The second
# argument is for alive, also in another checkout's script.
boot_nspawn() {
	local host=$1 dir=$LAB_DIR/hosts/$1 tree code unified=0
	[ ! -e /sys/fs/cgroup/cgroup.controllers ] || unified=1 # this machine has v2 alone, so the host has
	for tree in $(hierarchies); do
		mkdir -p "$tree/$LAB_BRIDGE/$host"
		echo $$ >"$tree/$LAB_BRIDGE/$host/cgroup.procs"
	done
	attach "$host"
	echo $$ >"$dir/pid"
	while :; do
		code=0
		SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=$unified systemd-nspawn --quiet --register=no --keep-unit --directory="$dir/root" \
			--machine="$host" --uuid="$(cat "$dir/machine-id")" --network-bridge="$LAB_BRIDGE" --resolv-conf=off \
			--timezone=off --link-journal=no --kill-signal=SIGRTMIN+3 --console=read-only /sbin/lab-init || code=$?
		[ $code = 133 ] || exit $code # 133: it wants to be rebooted
	done
}

boot_qemu() {
	local host=$1 dir=$LAB_DIR/hosts/$1 how id
	how=$(acceleration)
	id=$(cat "$dir/machine-id")
	ip link show "vb-$host" >/dev/null 2>&1 || ip tuntap add "vb-$host" mode tap
	ip link set "vb-$host" master "$LAB_BRIDGE" up
	qemu-system-x86_64 -M q35 -accel "$how" -cpu "$([ "$how" = kvm ] && echo host || echo max)" -smp 2 -m "$LAB_MEMORY" \
		-display none -serial "file:$dir/console" -daemonize -pidfile "$dir/pid" \
		-drive "file=$dir/disk.img,if=virtio,format=raw" -device virtio-rng-pci \
		-netdev "tap,id=n,ifname=vb-$host,script=no,downscript=no" \
		-device "virtio-net-pci,netdev=n,romfile=,mac=52:54:${id:0:2}:${id:2:2}:${id:4:2}:${id:6:2}" \
		-kernel "$LAB_CACHE/vmlinuz" -initrd "$LAB_CACHE/initrd" \
		-append 'root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off quiet'
}

# acceleration is KVM only where a kernel has been seen to start under it:
# /dev/kvm is also there where it then hangs.
acceleration() {
	local file=$LAB_DIR/acceleration
	if [ ! -s "$file" ]; then
		if timeout 10 qemu-system-x86_64 -M q35 -accel kvm -cpu host -m 256 -display none -no-reboot -serial stdio \
			-kernel "$LAB_CACHE/vmlinuz" -append 'console=ttyS0 panic=-1' </dev/null 2>/dev/null | grep -q 'Linux version'; then
			echo kvm >"$file"
		else
			echo tcg,thread=multi,tb-size=256 >"$file"
		fi
	fi
	cat "$file"
}

# wait_booted returns when PID 1 of a host says that all is started.
wait_booted() {
	local state end=$((SECONDS + LAB_PATIENCE))
	while [ $SECONDS -lt $end ]; do
		state=$(on "$1" systemctl is-system-running --wait 2>/dev/null) || true
		case $state in
		running) return ;;
		degraded)
			say "$1 has failed units: $(on "$1" systemctl --failed --plain --no-legend)"
			return
			;;
		*) sleep 0.3 ;;
		esac
	done
	die "$1 has not booted in $LAB_PATIENCE s: $(tail -n 5 "$LAB_DIR/hosts/$1/console")"
}

# acquaint tells every running host the names of all, and us how to reach them.
acquaint() {
	local host names
	{
		printf '%s\n' "IdentityFile $LAB_DIR/ssh/id" "UserKnownHostsFile $LAB_DIR/ssh/known_hosts" 'IdentitiesOnly yes' \
			'BatchMode yes' 'LogLevel ERROR' 'ConnectTimeout 5' 'ServerAliveInterval 5' 'ServerAliveCountMax 3'
		for host in $(hosts); do printf 'Host %s\n  HostName %s\n  HostKeyAlias %s\n' "$host" "$(address "$host")" "$host"; done
	} >"$LAB_DIR/ssh/config"
	names=$(for host in $(hosts); do echo "$(address "$host") $host # lab"; done)
	for host in $(hosts); do
		alive "$LAB_DIR/hosts/$host/pid" || continue
		wait_booted "$host"
		# shellcheck disable=SC2016 # the host expands it
		on "$host" 'sed -i "/# lab\$/d" /etc/hosts && cat >>/etc/hosts && sync' <<<"$names"
	done
}

gone() { # gone HOST SECONDS
	for _ in $(seq $(($2 * 10))); do
		alive "$LAB_DIR/hosts/$1/pid" || return 0
		sleep 0.1
	done
	return 1
}

# cut_power ends a host without a shutdown. The page cache of a qemu host goes
# with it; the file system of an nspawn host is first told to drop what is not
# on disk (EXT4_IOC_SHUTDOWN without a flush of its journal).
cut_power() {
	local host=$1 dir=$LAB_DIR/hosts/$1 nspawn first
	if [ "$(kind "$host")" = nspawn ] && alive "$dir/pid"; then
		python3 -c 'import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack("I", 2))' "/proc/$(cat "$dir/pid")/root$dir/disk" ||
			say "the disk of $host could not be shut down first"
		if nspawn=$(pgrep -x -P "$(cat "$dir/pid")" systemd-nspawn) && first=$(pgrep -P "$nspawn" | head -n 1); then
			kill -9 "$first" 2>/dev/null || true
			gone "$host" 3 || true
		fi
	fi
	! alive "$dir/pid" || kill -9 "$(cat "$dir/pid")" 2>/dev/null || true
	gone "$host" 10 || die "$host does not end"
	rm -f "$dir/pid"
	ip link del "vb-$host" 2>/dev/null || true
	remove_cgroups "$LAB_BRIDGE/$host"
}

remove_cgroups() {
	local tree
	for tree in $(hierarchies); do
		find "$tree/$1" -depth -type d -exec rmdir {} \; 2>/dev/null || true
	done
}

# ---- commands ----

up() {
	local host
	[ $# -gt 0 ] || die "up: which hosts?"
	check
	mkdir -p "$LAB_DIR"/{hosts,ssh} "$LAB_CACHE"
	chmod 700 "$LAB_DIR/ssh"
	[ -e "$LAB_DIR/ssh/id" ] || ssh-keygen -q -t ed25519 -N '' -C lab -f "$LAB_DIR/ssh/id"
	network
	proxy
	base
	for host in "$@"; do
		create "$host"
		boot "$host"
	done
	acquaint
}

start() {
	boot "$1"
	wait_booted "$1"
}

stop() {
	on "$1" systemctl --no-block poweroff 2>/dev/null || true
	gone "$1" 90 || die "$1 is still running 90 s after it was told to power off"
	cut_power "$1"
}

down() {
	local host
	for host in $(hosts); do
		cut_power "$host"
		rm -rf --one-file-system "$LAB_DIR/hosts/$host"
	done
	! alive "$LAB_DIR/proxy/pid" || kill "$(cat "$LAB_DIR/proxy/pid")"
	nft delete table bridge "$table" 2>/dev/null || true
	ip link del "$LAB_BRIDGE" 2>/dev/null || true
	remove_cgroups "$LAB_BRIDGE"
	rm -rf --one-file-system "$LAB_DIR"
}

partition() {
	local a b
	[ $# = 2 ] || die "partition: between which two sets?"
	for a in ${1//,/ }; do
		for b in ${2//,/ }; do
			known "$a"
			known "$b"
			[ "$a" != "$b" ] || die "$a is on both sides"
			nft "add rule bridge $table cut iifname vb-$a oifname vb-$b drop; add rule bridge $table cut iifname vb-$b oifname vb-$a drop"
		done
	done
}

heal() { nft flush chain bridge "$table" cut; }

status() {
	local host state
	for host in $(hosts); do
		state=off
		! alive "$LAB_DIR/hosts/$host/pid" || state=$(on "$host" systemctl is-system-running 2>/dev/null) || state=${state:-unreachable}
		printf '%s %s %s %s\n' "$host" "$(address "$host")" "$(kind "$host")" "$state"
	done
}

command=${1:-}
shift || true
case $command in
up | down | status | partition | heal | check) "$command" "$@" ;;
start | stop) known "${1:-}" && "$command" "$1" ;;
kill) known "${1:-}" && cut_power "$1" ;;
console) known "${1:-}" && cat "$LAB_DIR/hosts/$1/console" ;;
identify | boot_nspawn) "$command" "$@" ;; # by unshare -m, above
*) sed -n '2,/^set /s/^# \{0,1\}//p' "$self" ;;
esac
