# Compiles, inside the toolchain's container, the two libraries of llama-server that
# can start subprocesses, which a router needs, and links them with the libraries of
# the core's compile, which are in /core. JOBS as in compile.sh; arguments are passed
# to CMake, the libraries go to /build/out.
tree=/build/tree
cmake -S /src -B $tree -G Ninja "$@" >/build/configure.log 2>&1 || { cat /build/configure.log; exit 1; }

# link prints CMake's command that links a file, with the core's libraries.
link() {
	ninja -C $tree -t commands -s "$1" |
		sed 's:bin/\(libggml\|libggml-base\|libllama\|libmtmd\)\.so[.0-9]*:/core/\1.so.0:g'
}
# words prints the words of a link command that have an ending.
words() { link "$1" | tr ' ' '\n' | grep "\.$2\$"; }

mkdir /build/out
for library in libllama-common libllama-server-impl; do
	file=$(ninja -C $tree -t targets all | sed -n "s|^\(bin/$library\.so[.0-9]*\): CXX_SHARED_LIBRARY_LINKER.*|\1|p")
	archives=$(words "$file" a | sort -u)
	objects=$(for part in "$file" $archives; do words "$part" o; done)
	# shellcheck disable=SC2086 # lists of words
	ninja -C $tree -j "$JOBS" $objects
	for part in $archives "$file"; do
		(cd $tree && link "$part" | /bin/sh -eu)
	done
	soname=$(objdump -p "$tree/$file" | awk '$1 == "SONAME" { print $2 }')
	strip --strip-unneeded -o "/build/out/$soname" "$tree/$file"
done
chmod 0755 /build/out/*
