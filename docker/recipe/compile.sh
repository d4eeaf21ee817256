# Compiles llama.cpp inside the toolchain's container. The source is in /src,
# results go to /build/out. Read from the environment: BUILD (build targets),
# PROGRAMS, LIBRARIES and MODULES (names in bin), JOBS, ROCM. Arguments are
# passed to CMake.
tree=/build/tree
if [ -n "$ROCM" ]; then
	clang=$(hipconfig --hipclangpath 2>/dev/null || hipconfig -l)/clang++
	set -- "$@" "-DCMAKE_HIP_COMPILER=$clang"
fi
cmake -S /src -B $tree -G Ninja "$@" >/build/configure.log 2>&1 || { cat /build/configure.log; exit 1; }
cat /build/configure.log
if grep -q 'Manually-specified variables were not used' /build/configure.log; then
	exit 64
fi
# shellcheck disable=SC2086 # lists of words
ninja -C $tree -j "$JOBS" $BUILD

mkdir /build/out
cd $tree/bin
for program in $PROGRAMS; do
	strip -o "/build/out/$program" "$program"
done
for library in $LIBRARIES; do
	soname=$(objdump -p "$library" | awk '$1 == "SONAME" { print $2 }')
	strip --strip-unneeded -o "/build/out/${soname:-$library}" "$(readlink -f "$library")"
done
for module in $MODULES; do
	strip --strip-unneeded -o "/build/out/$module" "$(readlink -f "$module")"
done
chmod 0755 /build/out/*
