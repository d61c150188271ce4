#!/bin/bash
# Checks the packages that packaging/build.sh has left in dist, as far as a
# machine can that does not install them: what is in them, the linters of Debian
# and of rpm, the manual pages, what the programs need and say of themselves, and
# that a second build, elsewhere, gives the same bytes. check.sh --update takes
# over what is in them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C TZ=UTC
update=${1:-}

say() { printf 'packages: %s\n' "$*" >&2; }
failed=
fail() {
	say "$*"
	failed=1
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

assignments=$(packaging/version.sh)
eval "$assignments"
debs=(dist/gpuq{ctl,d}_"$VERSION"-1_*.deb)
rpms=(dist/gpuq{ctl,d}-"$VERSION"-1.*.rpm)
if [ ${#debs[@]} -ne 2 ] || [ ${#rpms[@]} -ne 2 ] || ! ls "${debs[@]}" "${rpms[@]}" >/dev/null; then
	say "dist has not the four packages of version $VERSION: make packages/build"
	exit 1
fi

# listing prints what a package says of itself and what is in it, without what
# differs from build to build or machine to machine: sizes, times, the version,
# the architecture.
listing() {
	{
		for deb in "${debs[@]}"; do
			echo "== $(dpkg-deb --field "$deb" Package).deb"
			dpkg-deb --field "$deb" Section Priority Depends Recommends Description
			echo "scripts: $(dpkg-deb --ctrl-tarfile "$deb" | tar -t | sort | xargs)"
			dpkg-deb --info "$deb" conffiles | sed 's/^/conffile: /'
			dpkg-deb --fsys-tarfile "$deb" | tar -tv | awk '{print $1, $2, $6}' | sort -k 3
		done
		for rpm in "${rpms[@]}"; do
			echo "== $(rpm -qp --queryformat '%{NAME}' "$rpm").rpm"
			rpm -qp --queryformat '%{LICENSE}; %{GROUP}; %{SUMMARY}\n' "$rpm"
			rpm -qp --requires "$rpm" | sed 's/^/requires: /'
			rpm -qp --recommends "$rpm" | sed 's/^/recommends: /'
			rpm -qp --scripts "$rpm" | sed -n 's/ scriptlet .*//p' | sed 's/^/script: /'
			rpm -qp --queryformat '[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES} %{FILEFLAGS:fflags}\n]' "$rpm" |
				sed 's/ *$//' | sort -k 3
		done
	} | sed "s/${VERSION//./\\.}/VERSION/g"
}

check_contents() {
	say "contents"
	listing >"$scratch/contents"
	if [ "$update" = --update ]; then
		cp "$scratch/contents" packaging/contents.txt
	fi
	diff -u packaging/contents.txt "$scratch/contents" >&2 ||
		fail "other contents than packaging/contents.txt says; packaging/check.sh --update takes them over"
}

check_linters() {
	say "lintian"
	lintian --tag-display-limit 0 --fail-on error,warning "${debs[@]}" 2> >(grep -v 'root privileges' >&2) ||
		fail "lintian is not content"
	say "rpmlint"
	# nfpm names files from the root on, and rpmlint has cpio unpack them there.
	mkdir "$scratch/bin"
	printf '#!/bin/sh\nexec %s --no-absolute-filenames "$@"\n' "$(command -v cpio)" >"$scratch/bin/cpio"
	chmod 0755 "$scratch/bin/cpio"
	# --strict makes errors of warnings.
	PATH=$scratch/bin:$PATH rpmlint --strict --config packaging/rpmlint.toml "${rpms[@]}" >"$scratch/rpmlint" 2>&1 || {
		cat "$scratch/rpmlint" >&2
		fail "rpmlint is not content"
	}
}

check_pages() {
	say "manual pages"
	local page text
	for page in "$scratch"/root/usr/share/man/man*/*.gz; do
		text=$scratch/${page##*/}
		text=${text%.gz}
		gunzip --stdout "$page" >"$text"
		mandoc -T lint -W warning "$text" >&2 || fail "mandoc is not content with ${page##*/}"
		groff -man -ww -T utf8 "$text" 2>"$scratch/groff" >/dev/null
		[ ! -s "$scratch/groff" ] || {
			cat "$scratch/groff" >&2
			fail "groff is not content with ${page##*/}"
		}
	done
}

# What nfpm.yaml says that gpuqd-device needs must be enough.
check_libraries() {
	say "libraries"
	local device=$scratch/root/usr/lib/gpuqd/gpuqd-device program needs newest said
	for program in usr/sbin/gpuqd usr/bin/gpuqctl usr/lib/gpuqd/gpuqd-shim; do
		needs=$(objdump -p "$scratch/root/$program" | awk '$1 == "NEEDED" {print $2}' | xargs)
		[ -z "$needs" ] || fail "$program needs $needs, and should be static"
	done
	needs=$(objdump -p "$device" | awk '$1 == "NEEDED" {print $2}' | xargs)
	[ "$needs" = libc.so.6 ] || fail "gpuqd-device needs $needs, and nfpm.yaml says libc alone"
	newest=$(objdump -T "$device" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -Vu | tail -n 1)
	grep -Eo 'libc6 \(>= [0-9.]+|GLIBC_[0-9.]+' nfpm.yaml | grep -Eo '[0-9.]+$' >"$scratch/said"
	while read -r said; do
		[ "$(printf '%s\n' "$newest" "$said" | sort -V | tail -n 1)" = "$said" ] ||
			fail "gpuqd-device needs glibc $newest, and nfpm.yaml says $said: build on an older release, or say so there"
	done <"$scratch/said"
}

check_programs() {
	say "programs"
	local said status=0
	# Without a driver it says so, and ends with 3: what cannot even be loaded ends otherwise.
	said=$("$scratch/root/usr/lib/gpuqd/gpuqd-device" --once 2>&1) || status=$?
	[ $status -eq 0 ] || [ $status -eq 3 ] || fail "gpuqd-device does not run: exit code $status, $said"
	for said in "$("$scratch/root/usr/sbin/gpuqd" --version)" "$("$scratch/root/usr/bin/gpuqctl" version --client)"; do
		case $said in
		*"$VERSION (${COMMIT:0:12}"*) ;;
		*) fail "a program says it is $said, and is of version $VERSION, commit $COMMIT" ;;
		esac
	done
	"$scratch/root/usr/bin/gpuqctl" version --client --json | grep -q "\"date\": \"$DATE\"" || fail "gpuqctl does not know its date, $DATE"
	bash -n "$scratch/root/usr/share/bash-completion/completions/gpuqctl" || fail "bash does not understand its completion"
}

# check_again builds once more: in another directory, with another umask and time
# zone, and with nothing compiled that the first build has left in Go's cache.
check_again() {
	say "a second build"
	local copy="$scratch/a/second/tree" package
	mkdir -p "$copy" "$scratch/cache"
	(
		umask 077
		git ls-files --cached --others --exclude-standard -z | tar --create --null --files-from=- | tar --extract --directory "$copy"
		cd "$copy"
		export VERSION COMMIT SOURCE_DATE_EPOCH TZ=Asia/Seoul PROGRAMS_CACHE=$scratch/cache GOFLAGS=
		packaging/build.sh 2>"$scratch/again" || {
			cat "$scratch/again" >&2
			exit 1
		}
	)
	for package in "${debs[@]}" "${rpms[@]}"; do
		cmp "$package" "$copy/$package" >&2 || fail "${package##*/} is not the same when it is built again"
	done
}

mkdir "$scratch/root"
for deb in "${debs[@]}"; do
	dpkg-deb --extract "$deb" "$scratch/root"
done
check_contents
check_linters
check_pages
check_libraries
check_programs
check_again
[ -z "$failed" ] || exit 1
say "the four packages of version $VERSION are right:"
sha256sum "${debs[@]}" "${rpms[@]}" >&2
