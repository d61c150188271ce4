#!/bin/sh
# Installs the Debian packages that gpuqd's build, tests and `make up` need, as
# far as they are missing. Services that come with them are neither started nor
# enabled. Usage: install-deps.sh [--check] [packages] [hosts] [lint] [site]
# [monitoring]; --check installs nothing and exits with 1 if something is missing;
# packages adds what make packages needs: the linters are large; hosts what make e2e
# boots hosts with; lint what looks over ansible/, and site what runs it, which is as
# large; monitoring what make up MONITORING=1 runs, and builds Promtail with.
set -eu

say() { printf 'install-deps: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

go_needed=1.26

check_go() {
	command -v go >/dev/null 2>&1 ||
		die "Go $go_needed or newer is not on the PATH: install it from https://go.dev/dl/ (Debian 12's golang is too old)"
	# "go version" names this toolchain; go.mod could make "go env" name another.
	found=$(cd / && go env GOVERSION)
	found=${found#go}
	oldest=$(printf '%s\n%s\n' "$go_needed" "$found" | sort -V | head -n 1)
	[ "$oldest" = "$go_needed" ] ||
		die "Go $found is too old: install $go_needed or newer from https://go.dev/dl/"
}

# A package counts as present when it is installed, or when what it is for is
# there in another way: a program or file named after a colon.
wanted='
rabbitmq-server:/usr/lib/rabbitmq/bin/rabbitmq-server
redis-server:/usr/bin/redis-server
python3:python3
gcc:gcc
libc6-dev:/usr/include/stdio.h
shellcheck:shellcheck
dbus-daemon:dbus-daemon
prometheus:promtool
'
wanted_for_packages='
git:git
binutils:objdump
lintian:lintian
rpm:rpm
cpio:cpio
rpmlint:rpmlint
python3-magic:/usr/lib/python3/dist-packages/magic/__init__.py
mandoc:mandoc
groff-base:groff
'
wanted_for_hosts='
mmdebstrap:mmdebstrap
systemd-container:systemd-nspawn
nftables:/usr/sbin/nft
openssh-client:ssh
apt-cacher-ng:/usr/sbin/apt-cacher-ng
iproute2:ip
e2fsprogs:/usr/sbin/mkfs.ext4
procps:pgrep
qemu-system-x86:qemu-system-x86_64
'
wanted_for_site='
ansible:/usr/lib/python3/dist-packages/ansible_collections/community/rabbitmq/MANIFEST.json
python3-cryptography:/usr/lib/python3/dist-packages/cryptography/__init__.py
libsystemd-dev:/usr/include/systemd/sd-journal.h
'
wanted_for_lint='
ansible:/usr/lib/python3/dist-packages/ansible_collections/community/rabbitmq/MANIFEST.json
ansible-lint:ansible-lint
yamllint:yamllint
'
wanted_for_monitoring='
prometheus:/usr/bin/prometheus
prometheus-alertmanager:/usr/bin/prometheus-alertmanager
prometheus-node-exporter:/usr/bin/prometheus-node-exporter
prometheus-redis-exporter:/usr/bin/prometheus-redis-exporter
systemd:/lib/systemd/systemd-journald
libsystemd-dev:/usr/include/systemd/sd-journal.h
python3-jinja2:/usr/lib/python3/dist-packages/jinja2/__init__.py
python3-yaml:/usr/lib/python3/dist-packages/yaml/__init__.py
'

has() {
	case $1 in
	/*) [ -e "$1" ] ;;
	*) command -v "$1" >/dev/null 2>&1 ;;
	esac
}

missing() {
	for entry in $wanted; do
		has "${entry#*:}" || printf '%s ' "${entry%%:*}"
	done
}

policy=/usr/sbin/policy-rc.d
policy_mine= # not empty: we made it
scratch=

# Debian starts a package's services as it is installed, unless this script says
# no with 101. One that is there already is kept, whatever it says.
#
# Source: invoke-rc.d(8), "policy-rc.d".
forbid_services() {
	[ -e "$policy" ] && return
	policy_mine=1
	printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
	$sudo chmod 0755 "$policy"
}

clean_up() {
	if [ -n "$policy_mine" ]; then
		$sudo rm -f "$policy"
	fi
	if [ -n "$scratch" ]; then
		rm -rf "$scratch"
	fi
}

# enabled lists what starts at the next boot: the links of systemd, with the
# aliases that come with them, and of SysV.
enabled() {
	find /etc/systemd/system -type l 2>/dev/null || true
	find /etc/rc[2-5].d -name 'S*' -type l 2>/dev/null || true
}

# disable_new undoes what the packages' own scripts enabled for the next boot,
# which policy-rc.d does not prevent. $1 lists what was enabled before.
disable_new() {
	enabled | sort | comm -13 "$1" - | while read -r link; do
		case $link in
		/etc/rc*) $sudo update-rc.d "${link##*/S[0-9][0-9]}" disable ;;
		*) $sudo rm -f "$link" ;; # all that systemctl disable does, and there may be none
		esac >/dev/null 2>&1 </dev/null || say "$link could not be removed: its service starts at the next boot"
	done
	if command -v systemctl >/dev/null 2>&1 && [ -d /run/systemd/system ]; then
		$sudo systemctl daemon-reload </dev/null
	fi
}

install() {
	command -v apt-get >/dev/null 2>&1 ||
		die "this is no Debian: install by hand what these packages bring: $packages"
	sudo=
	if [ "$(id -u)" -ne 0 ]; then
		if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
			sudo=sudo
		elif command -v sudo >/dev/null 2>&1 && [ -t 0 ]; then
			sudo=sudo # it will ask
		else
			die "no rights to install packages. As root: apt-get update && apt-get install --no-install-recommends ${packages% }"
		fi
	fi
	say "installing ${packages% }"
	trap clean_up EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	scratch=$(mktemp -d)
	log=$scratch/log
	enabled | sort >"$scratch/enabled"
	forbid_services
	# apt-get's own lines are for those who want to know why it went wrong.
	# shellcheck disable=SC2086 # words: sudo may be empty, packages are many
	if ! { $sudo apt-get update && $sudo env DEBIAN_FRONTEND=noninteractive \
		apt-get install --yes --no-install-recommends $packages; } >"$log" 2>&1 </dev/null; then
		tail -n 20 "$log" >&2
		die "apt-get did not install ${packages% }: see above"
	fi
	disable_new "$scratch/enabled"
	left=$(missing)
	[ -z "$left" ] || die "installed, but still missing what these bring: $left"
}

check=
for argument; do
	case $argument in
	--check) check=1 ;;
	packages) wanted=$wanted$wanted_for_packages ;;
	hosts) wanted=$wanted$wanted_for_hosts ;;
	lint) wanted=$wanted$wanted_for_lint ;;
	site) wanted=$wanted$wanted_for_site ;;
	monitoring) wanted=$wanted$wanted_for_monitoring ;;
	*) die "unknown argument $argument" ;;
	esac
done
check_go
packages=$(missing)
[ -n "$packages" ] || exit 0
[ -z "$check" ] || die "missing: ${packages% }"
install
