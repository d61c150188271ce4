#!/bin/bash
# Builds the packages gpuqd and gpuqctl, as .deb and as .rpm, into dist/. The
# same commit gives the same bytes, with the same Go and gcc, in whatever
# directory and at whatever time: all times are the commit's.
#
# The environment can set VERSION (with COMMIT and SOURCE_DATE_EPOCH where there
# is no git: packaging/version.sh); MAINTAINER; another directory for the
# packages, OUT; and another cache for the programs than Go's, PROGRAMS_CACHE.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022
export LC_ALL=C TZ=UTC
export GOAMD64=v1 GOARM64=v8.0 # for every processor, whatever this machine's Go is set to

say() { printf 'packages: %s\n' "$*" >&2; }

assignments=$(packaging/version.sh)
eval "$assignments"
ARCH=$(go env GOARCH)
MAINTAINER=${MAINTAINER:-gpuqd maintainers <maintainers@gpuqd.example>}
export VERSION COMMIT DATE SOURCE_DATE_EPOCH ARCH MAINTAINER

out=${OUT:-dist}
stage=dist/stage # nfpm.yaml names it
rm -rf $stage
mkdir -p "$out" $stage/{bin,completions}

# compile PROGRAM PACKAGE CGO FLAG... leaves out the symbol table: traces of a
# panic do not need it. Nothing of this machine gets in: no paths, no state of
# a checkout.
compile() {
	local program=$1 package=$2 cgo=$3
	shift 3
	env CGO_ENABLED="$cgo" ${PROGRAMS_CACHE:+GOCACHE="$PROGRAMS_CACHE"} go build -trimpath -buildvcs=false "$@" -o "$stage/bin/$program" -ldflags "-s -w \
		-X gpuqd/daemon/version.Version=$VERSION \
		-X gpuqd/daemon/version.Commit=$COMMIT \
		-X gpuqd/daemon/version.Date=$DATE ${extldflags:-}" "$package"
}

say "building version $VERSION"
compile gpuqd ./daemon 0
compile gpuqctl ./ctl 0
compile gpuqd-shim ./daemon/shim 0
# It links C, so it gets what C programs of a distribution get, but for one thing:
# its symbols must be bound when they are called, which is after it has loaded the
# NVML library. Bound at the start (-z now, the default of some compilers) they are
# not there, and it cannot start on any host.
extldflags="-extldflags '-Wl,-z,relro -Wl,-z,lazy'" \
	CGO_CFLAGS='-O2 -fstack-protector-strong -D_FORTIFY_SOURCE=2 -Wno-deprecated-declarations' \
	compile gpuqd-device ./daemon/nvml 1 -buildmode=pie

for shell in bash zsh fish; do
	$stage/bin/gpuqctl completion $shell >$stage/completions/gpuqctl.$shell
done

go run ./packaging/gpuq-docs --programs $stage/bin --out $stage \
	--version "$VERSION" --maintainer "$MAINTAINER" --epoch "$SOURCE_DATE_EPOCH"
gzip -9 --no-name $stage/gpuq*/changelog.Debian $stage/gpuq*/*.[158]

nfpm() { go tool -modfile=test/tools/nfpm/go.mod nfpm "$@"; }

# pages NAME MARK lists the package's manual pages, as more of the contents with
# which a configuration ends: there is one for each verb.
pages() {
	local page
	for page in "$stage/$1"/*.[158].gz; do
		local section=${page%.gz}
		printf '  - {src: %s, dst: /usr/share/man/man%s/%s, %sfile_info: {mode: 0644}}\n' \
			"$page" "${section##*.}" "${page##*/}" "$2"
	done
}

# pack NAME CONFIG makes both packages of one configuration. For rpm, changelog
# and licence are part of the header, and manual pages are marked as such. For
# dpkg both are files: nfpm would not break the lines of the one, and the other
# is no field of a package there.
pack() {
	{ cat "$2" && pages "$1" ''; } |
		nfpm package --config - --packager deb --target "$out/${1}_${VERSION}-1_${ARCH}.deb" >/dev/null
	{ cat "$2" && pages "$1" 'type: doc, ' && printf 'license: Apache-2.0\nchangelog: %s\n' $stage/changelog.rpm.yaml; } |
		nfpm package --config - --packager rpm --target "$out/${1}-${VERSION}-1.$(rpm_arch).rpm" >/dev/null
}

rpm_arch() {
	case $ARCH in
	amd64) echo x86_64 ;;
	arm64) echo aarch64 ;;
	*) echo "$ARCH" ;;
	esac
}

rm -f "$out"/gpuq{d,ctl}[-_]*.{deb,rpm}
pack gpuqd nfpm.yaml
pack gpuqctl packaging/gpuqctl.yaml
ls -l "$out"/*.deb "$out"/*.rpm >&2
