#!/bin/sh
# Says which build this is, as shell assignments for eval: VERSION of the
# packages, COMMIT, SOURCE_DATE_EPOCH (seconds, of the commit) and DATE (the
# same in RFC 3339). What the environment sets already is believed, so a source
# tree without git can be built when it sets the first three.
#
# A commit with a tag v1.2.3 is version 1.2.3; a later one
# 1.2.3+git20261128214300.0123456789ab, which is newer than 1.2.3 to dpkg and
# rpm and older than 1.2.4. Before the first tag it is 0~git..., older than
# every release.
set -eu
cd "$(dirname "$0")/.."

die() {
	printf 'version.sh: %s\n' "$*" >&2
	exit 1
}

in_git() { git rev-parse --verify --quiet HEAD >/dev/null 2>&1; }

need_git() { in_git || die "there is no git commit here that could be read: set $1"; }

if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
	need_git SOURCE_DATE_EPOCH
	SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
fi
dirty=
if in_git && [ -n "$(git status --porcelain)" ]; then
	dirty=1
fi
if [ -z "${COMMIT:-}" ]; then
	need_git COMMIT
	COMMIT=$(git rev-parse HEAD)${dirty:+-dirty}
fi
if [ -z "${VERSION:-}" ]; then
	need_git VERSION
	suffix=git$(date --utc --date="@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).$(git rev-parse --short=12 HEAD)${dirty:+.dirty}
	tag=$(git describe --tags --match 'v[0-9]*' --abbrev=0 2>/dev/null || true)
	if [ -z "$tag" ]; then
		VERSION=0~$suffix
	elif [ -z "$dirty" ] && [ "$(git rev-parse "$tag^{commit}")" = "$(git rev-parse HEAD)" ]; then
		VERSION=${tag#v}
	else
		VERSION=${tag#v}+$suffix
	fi
fi
# What both dpkg and rpm read as one version; a - would begin a revision.
case $VERSION in
[0-9]*) ;;
*) die "the version $VERSION does not begin with a digit" ;;
esac
case $VERSION in
*[!A-Za-z0-9.+~]*) die "the version $VERSION may have letters, digits and . + ~ only" ;;
esac
DATE=$(date --utc --date="@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
printf "VERSION='%s' COMMIT='%s' SOURCE_DATE_EPOCH='%s' DATE='%s'\n" "$VERSION" "$COMMIT" "$SOURCE_DATE_EPOCH" "$DATE"
