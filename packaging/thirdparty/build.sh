#!/bin/bash
# Builds .deb packages of what neither Debian nor the sites without internet have:
# Loki and Promtail, from the Go module proxy, and for tests alone the MongoDB-wire
# stand-in. Usage: build.sh [--check] [--programs] [loki] [promtail]
# [gpuq-mongowire]; no name is all. Prints the packages' paths; --check builds
# nothing, and fails where one is missing; --programs makes no packages, and prints
# the programs' paths.
#
# Programs are kept in a cache by version, compiler and recipe, since Loki and
# Promtail take 7 minutes each on two idle cores, 3 GB of disk and 4 GB of memory:
# THIRDPARTY_CACHE, by default below the user's cache directory. Packages go to OUT,
# by default dist/thirdparty.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
umask 022
export LC_ALL=C TZ=UTC
export GOAMD64=v1 GOARM64=v8.0 GOFLAGS='' GOWORK=off

# The last Promtail there is: its line has ended with 3.6. The library is replaced
# by a directory of Grafana's own tree, which the module leaves out.
loki_version=3.7.8
promtail_version=3.6.4
push_version=v0.0.0-20250630054201-94c0ba7b0952

say() { printf 'thirdparty: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

ARCH=$(go env GOARCH)
MAINTAINER=${MAINTAINER:-gpuqd maintainers <maintainers@gpuqd.example>}
scratch= # of a build that is under way
cache=${THIRDPARTY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gpuqd/thirdparty}
out=${OUT:-dist/thirdparty}

# module PATH VERSION prints the directory of a module, fetched where it is not
# there yet. Outside of any module: ours has nothing to do with it.
module() {
	(cd / && go mod download -json "$1@$2") | sed -n 's/^\t"Dir": "\(.*\)",\?$/\1/p'
}

# key TEXT... names a build: what goes into it, and with which compiler.
key() {
	{
		go version
		printf '%s\n' "$ARCH" "$@"
	} | sha256sum | cut -c 1-16
}

# grafana PROGRAM VERSION PACKAGE CGO TAGS builds a program of Grafana's tree into
# $built, with the licence beside it.
grafana() {
	local program=$1 version=$2 package=$3 cgo=$4 tags=$5
	built=$cache/$program-$version-$(key "$@" "$push_version")
	[ -e "$built/$program" ] && return
	[ -z "$check" ] || die "$program $version has not been built: packaging/thirdparty/build.sh $program"
	local source
	mkdir -p "$cache"
	scratch=$(mktemp -d "$cache/build.XXXXXX")
	trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT
	source=$(module github.com/grafana/loki/v3 "v$version")
	[ -n "$source" ] || die "the module proxy has no grafana/loki $version"
	say "building $program $version: about 7 minutes on two idle cores, once"
	cp -r "$source" "$scratch/src"
	chmod -R u+w "$scratch/src"
	rm -rf "$scratch/src/pkg/push"
	cp -r "$(module github.com/grafana/loki/pkg/push "$push_version")" "$scratch/src/pkg/push"
	chmod -R u+w "$scratch/src"
	mkdir "$scratch/result"
	cp "$scratch/src/LICENSE" "$scratch/result/"
	# Two at a time, and no symbol table: linking takes the most memory.
	(cd "$scratch/src" && CGO_ENABLED=$cgo go build -p "${JOBS:-2}" -trimpath -buildvcs=false ${tags:+-tags "$tags"} \
		-ldflags "-s -w -X github.com/grafana/loki/v3/pkg/util/build.Version=$version" \
		-o "$scratch/result/$program" "$package")
	mv "$scratch/result" "$built"
	chmod -R u+w "$scratch"
	rm -rf "$scratch"
	trap - EXIT
}

build_loki() {
	version=$loki_version
	grafana loki "$version" ./cmd/loki 0 ''
	version=$version~gpuq1
}

# Reads the journal by libsystemd, which it opens as it runs.
build_promtail() {
	version=$promtail_version
	[ -n "$check" ] || [ -e /usr/include/systemd/sd-journal.h ] || die "promtail needs libsystemd-dev: apt-get install libsystemd-dev"
	grafana promtail "$version" ./clients/cmd/promtail 1 promtail_journal_enabled
	version=$version~gpuq1
}

# The program as test/services has it: one lot of sources, one binary.
build_gpuq_mongowire() {
	local source=test/tools/mongowire
	version=1.24.2
	built=$cache/gpuq-mongowire-$version-$(key "$(cat $source/*.go $source/go.sum)")
	if [ ! -e "$built/mongowire" ]; then
		[ -z "$check" ] || die "gpuq-mongowire has not been built: packaging/thirdparty/build.sh gpuq-mongowire"
		say "building mongowire"
		mkdir -p "$built"
		cp LICENSE "$built/"
		(cd $source && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$built/mongowire.new" .)
		mv "$built/mongowire.new" "$built/mongowire"
	fi
}

check=
programs=
products=()
for argument; do
	case $argument in
	--check) check=1 ;;
	--programs) programs=1 ;;
	loki | promtail | gpuq-mongowire) products+=("$argument") ;;
	*) die "unknown argument $argument" ;;
	esac
done
[ ${#products[@]} -gt 0 ] || products=(loki promtail gpuq-mongowire)

[ -n "$programs" ] || mkdir -p "$out"
for product in "${products[@]}"; do
	"build_${product//-/_}"
	if [ -n "$programs" ]; then
		printf '%s\n' "$built/${product#gpuq-}"
		continue
	fi
	rm -rf "$out/stage"
	mkdir -p "$out/stage"
	cp "$built"/* "$out/stage/"
	deb=$out/${product}_${version}_$ARCH.deb
	rm -f "$out/${product}_"*.deb
	# One time for all files, so that the same program gives the same package.
	STAGE=$out/stage VERSION=$version ARCH=$ARCH MAINTAINER=$MAINTAINER SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1764547200} \
		go tool -modfile=test/tools/nfpm/go.mod nfpm package --config "packaging/thirdparty/$product.yaml" \
		--packager deb --target "$deb" >/dev/null
	rm -rf "$out/stage"
	printf '%s\n' "$deb"
done
