# Sourced by avx512.sh: where the parts of the emulated machine come from.

# emulate_parts sets BOCHS, BOCHS_CPU and EMULATE_KERNEL, or ends with a message
# that names what is missing.
emulate_parts() {
	BOCHS=${BOCHS:-bochs}
	BOCHS_CPU=${BOCHS_CPU:-corei7_skylake_x}
	local tool missing=()
	for tool in "$BOCHS" xorriso cpio; do
		command -v "$tool" >/dev/null || missing+=("$tool")
	done
	[ -e /usr/lib/ISOLINUX/isolinux.bin ] || missing+=(isolinux)
	[ -e /usr/lib/syslinux/modules/bios/ldlinux.c32 ] || missing+=(syslinux-common)
	if [ ${#missing[@]} -gt 0 ]; then
		echo "emulate: missing: ${missing[*]} (see internal/emulate/README.md)" >&2
		exit 3
	fi
	[ -n "${EMULATE_KERNEL:-}" ] || emulate_fetch_kernel
}

# emulate_fetch_kernel unpacks Debian's kernel for virtual machines into the cache.
emulate_fetch_kernel() {
	local home=${XDG_CACHE_HOME:-$HOME/.cache}/elbo-ci/linux tmp name
	EMULATE_KERNEL=$home/vmlinuz
	[ ! -e "$EMULATE_KERNEL" ] || return 0
	name=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ { print $2; exit }')
	mkdir -p "$home"
	tmp=$(mktemp -d)
	if ! (cd "$tmp" && apt-get -qq -o APT::Sandbox::User=root download "$name" && dpkg-deb -x ./*.deb x && mv x/boot/vmlinuz-* "$EMULATE_KERNEL"); then
		rm -rf "$tmp"
		echo "emulate: no kernel: package linux-image-cloud-amd64 could not be fetched; set EMULATE_KERNEL" >&2
		exit 3
	fi
	rm -rf "$tmp"
}

# emulate_config writes the settings of the machine. ips says how many
# instructions make an emulated second; it only scales the guest's clock.
emulate_config() {
	local share=/usr/share/bochs vga=/usr/share/vgabios/vgabios.bin display=term sound="sound: driver=dummy"
	if [ -n "${BOCHS_SHARE:-}" ]; then # an own build: it has neither screen nor sound
		share=$BOCHS_SHARE vga=$BOCHS_SHARE/VGABIOS-lgpl-latest.bin display=nogui sound=
	fi
	cat <<END
display_library: $display
cpu: model=$BOCHS_CPU, count=1, ips=50000000, reset_on_triple_fault=0
memory: guest=512, host=512
romimage: file=$share/BIOS-bochs-latest
vgaromimage: file=$vga
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
clock: sync=none, time0=1700000000
com1: enabled=1, mode=file, dev=serial
log: log
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
speaker: enabled=1, mode=none
$sound
END
}
