#!/usr/bin/env bash
# Runs the tests of a package on an emulated machine with AVX-512:
#
#     internal/emulate/avx512.sh ./vae/internal/kernel -test.run Gemm
#
# prints what they print and ends as they end, or with 3 if a part of the machine is
# missing and with 4 if the time is up. README.md says what is needed. A passing or
# failing test binary ends with 0 to 2. The settings are environment variables:
#
#     ELBO_KERNEL      passed on to the tests
#     BOCHS            the emulator; default bochs
#     BOCHS_CPU        its CPU model; default corei7_skylake_x
#     EMULATE_KERNEL   a Linux bzImage; default: Debian's, fetched once
#     EMULATE_TIMEOUT  seconds on the real clock before the machine is stopped; default 600
#     EMULATE_TAGS     build tags
#     EMULATE_APPEND   more words for the kernel, such as "loglevel=7 earlyprintk=ttyS0,115200"
#     EMULATE_KEEP     1 leaves the folder with the machine's files and logs
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
[ $# -ge 1 ] || { echo "usage: $0 PACKAGE [TEST FLAGS]" >&2; exit 2; }
pkg=$1
shift
# shellcheck source=parts.sh
. "$here/parts.sh"
emulate_parts

work=$(mktemp -d)
trap '[ -n "${EMULATE_KEEP:-}" ] || rm -rf "$work"' EXIT
mkdir -p "$work/iso" "$work/root/package"

CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -trimpath -ldflags='-s -w' -o "$work/root/init" ./internal/emulate/_guest
CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go test -c -tags "${EMULATE_TAGS:-}" -ldflags='-s -w' -o "$work/root/test" "$pkg"
dir=$(go list -f '{{.Dir}}' "$pkg")
[ ! -d "$dir/testdata" ] || cp -r "$dir/testdata" "$work/root/package/"
printf '%s\0' PATH=/ HOME=/tmp TMPDIR=/tmp GOMAXPROCS=1 GOTRACEBACK=all ${ELBO_KERNEL:+"ELBO_KERNEL=$ELBO_KERNEL"} "" "$@" >"$work/root/job"
(cd "$work/root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc) >"$work/iso/initrd"

cp "$EMULATE_KERNEL" "$work/iso/vmlinuz"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$work/iso/"
cat >"$work/iso/isolinux.cfg" <<END
default test
label test
  kernel vmlinuz
  initrd initrd
  append console=ttyS0,115200 quiet loglevel=0 panic=-1 reboot=t nokaslr mitigations=off tsc=reliable no_timer_check acpi=off noapic nosmp lpj=1000000 random.trust_cpu=on nopku no5lvl clearcpuid=fsrm,xsaves,xsavec ${EMULATE_APPEND:-}
END
xorriso -as mkisofs -quiet -o "$work/boot.iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table "$work/iso" 2>"$work/xorriso.log" ||
	{ cat "$work/xorriso.log" >&2; exit 1; }

emulate_config >"$work/bochsrc"
rc=
if [ -z "${BOCHS_SHARE:-}" ]; then # Debian's build has a debugger, which has to be told to go on
	printf 'continue\nquit\n' >"$work/commands"
	rc=commands
fi
# Some builds do not end with the guest: the last line of its console does it.
(cd "$work" && TERM=vt100 exec timeout -k 2 "${EMULATE_TIMEOUT:-600}" "$BOCHS" -q -f bochsrc ${rc:+-rc "$rc"}) >"$work/screen" 2>&1 </dev/null &
machine=$!
while kill -0 "$machine" 2>/dev/null && ! grep -qs $'^guest: exit [0-9]*\r' "$work/serial"; do sleep 0.5; done
kill "$machine" 2>/dev/null || true
status=0
wait "$machine" 2>/dev/null || status=$?
[ -e "$work/serial" ] || [ "$status" = 124 ] || [ "$status" = 137 ] || { tail -n 30 "$work/screen" "$work/log" >&2; echo "emulate: $BOCHS did not start" >&2; exit 1; }
touch "$work/serial"
tr -d '\r' <"$work/serial" >"$work/out"
code=$(sed -n 's/^guest: exit //p' "$work/out" | tail -n 1)
sed '/^guest: exit /d' "$work/out"
if [ -z "$code" ]; then
	if [ "$status" = 124 ] || [ "$status" = 137 ]; then
		echo "emulate: no result within ${EMULATE_TIMEOUT:-600}s" >&2
		exit 4
	fi
	tail -n 5 "$work/log" >&2
	echo "emulate: the machine ended without a result (status $status)" >&2
	exit 1
fi
exit "$code"
