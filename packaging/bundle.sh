#!/bin/bash
# Collects what a site without internet needs, in a directory to be copied to its
# controller: the packages of each product with all that they depend on beyond a
# minimal Debian, and a manifest of digests that the roles hold them to
# (gpuq_bundle_dir). Run it where there is internet, on the hosts' release of Debian
# and their architecture: make packages first, then make bundle.
#
#   OUT=dist/bundle        where to; what was there is replaced
#   PRODUCTS="gpuqd ..."   which; all by default
#   COMMON="htop ..."      more of Debian's packages that every host gets (gpuq_common_names)
#   EXTRA=DIR              packages from elsewhere, each in DIR/PRODUCT/*.deb: MongoDB,
#                          Grafana and Alloy, which are in no source that this knows
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022
export LC_ALL=C

say() { printf 'bundle: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

# Debian's packages of each product, by name. A product's directory is what a role
# asks for.
declare -A debian=(
	[common]="ca-certificates chrony ${COMMON:-}"
	[rabbitmq]="rabbitmq-server"
	[redis]="redis-server redis-sentinel"
	[prometheus]="prometheus prometheus-alertmanager"
	[node_exporter]="prometheus-node-exporter"
	[redis_exporter]="prometheus-redis-exporter"
	[controller]="ansible openssh-client python3-cryptography"
)

out=${OUT:-dist/bundle}
extra=${EXTRA:-}
read -ra products <<<"${PRODUCTS:-gpuqd common rabbitmq redis prometheus node_exporter redis_exporter controller loki promtail}"
if [ -n "$extra" ]; then
	[ -d "$extra" ] || die "EXTRA=$extra is no directory"
	for dir in "$extra"/*/; do
		products+=("$(basename "$dir")")
	done
fi
command -v apt-get >/dev/null 2>&1 || die "there is no apt-get here: run it on Debian"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
: >"$scratch/status"

# apt as on a host where nothing is installed, for its sources as they are here.
bare() {
	apt-get --option=Dir::State::status="$scratch/status" --option=APT::Get::AllowUnauthenticated=false \
		--option=Debug::NoLocking=true --no-install-recommends "$@"
}

# closure PACKAGE... prints name=version:architecture of these and of all that they
# depend on.
closure() {
	bare --simulate install "$@" >"$scratch/simulated" 2>"$scratch/errors" || {
		cat "$scratch/errors" >&2
		die "apt cannot install $*: apt-get update first?"
	}
	sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*$/\1=\2/p' "$scratch/simulated" | sort
}

# Every host has these; and what they need.
base() {
	local packages
	packages=$(apt-cache dumpavail | awk -v RS= '/\nPriority: (required|important)\n/ && match($0, /^Package: [^\n]*/) {print substr($0, 10, RLENGTH - 9)}' | sort -u)
	# shellcheck disable=SC2086 # a list
	closure $packages
}

# from_debian PRODUCT fetches what apt would install on a minimal host. apt checks
# what it fetches against Debian's signatures.
from_debian() {
	[ -e "$scratch/base" ] || base >"$scratch/base"
	# shellcheck disable=SC2086 # a list
	closure ${debian[$1]} | comm -23 - "$scratch/base" >"$scratch/wanted"
	(cd "$staged/$1" && xargs apt-get --quiet --quiet --option=APT::Sandbox::User=root download <"$scratch/wanted") ||
		die "the packages of $1 could not be fetched"
	# apt writes an epoch as 5%3a, and would read it back as a colon.
	local file
	for file in "$staged/$1"/*%3a*; do
		[ ! -e "$file" ] || mv "$file" "${file%_*%3a*}_${file##*%3a}"
	done
}

# from_files PRODUCT FILE... takes packages that are here.
from_files() {
	local product=$1
	shift
	cp -- "$@" "$staged/$product/"
}

staged=$scratch/bundle
mkdir "$staged"
for product in "${products[@]}"; do
	[ ! -d "$staged/$product" ] || die "the product $product is named twice: EXTRA has it, and PRODUCTS"
	mkdir "$staged/$product"
	say "$product"
	if [ -n "$extra" ] && [ -d "$extra/$product" ]; then
		compgen -G "$extra/$product/*.deb" >/dev/null || die "$extra/$product has no .deb files"
		from_files "$product" "$extra/$product"/*.deb
	elif [ "$product" = gpuqd ]; then
		compgen -G 'dist/gpuqd_*.deb' >/dev/null || die "dist has no packages of gpuqd: make packages first"
		from_files gpuqd dist/gpuqd_*.deb dist/gpuqctl_*.deb
	elif [ "$product" = loki ] || [ "$product" = promtail ]; then
		if deb=$(packaging/thirdparty/build.sh --check "$product" 2>/dev/null); then
			from_files "$product" "$deb"
		else
			[ -z "${PRODUCTS:-}" ] || die "$product has not been built: packaging/thirdparty/build.sh $product"
			rmdir "$staged/$product"
			say "$product is left out: it has not been built (packaging/thirdparty/build.sh $product), nor is it in EXTRA"
		fi
	elif [ -n "${debian[$product]:-}" ]; then
		from_debian "$product"
	else
		die "there is no product $product: ${!debian[*]} gpuqd loki promtail, or what EXTRA has"
	fi
done

# contents prints what is in the bundle, for people.
contents() {
	local deb
	for deb in */*.deb; do
		# shellcheck disable=SC2016 # dpkg's words
		printf '%s %s\n' "${deb%%/*}" "$(dpkg-deb --show --showformat '${Package} ${Version} ${Architecture}' "$deb")"
	done
}

(
	cd "$staged"
	find . -name '*.deb' -printf '%P\n' | sort | xargs --delimiter='\n' sha256sum >manifest.sha256
	contents >contents.txt
	sha256sum --check --strict --quiet manifest.sha256
)
mkdir -p "$(dirname "$out")"
rm -rf "$out"
mv "$staged" "$out"
say "$(wc -l <"$out/manifest.sha256") packages, $(du -sh "$out" | cut -f 1), in $out. Its manifest's own digest, to be told apart from it:"
sha256sum "$out/manifest.sha256"
