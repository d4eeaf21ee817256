# Compiles single files of a component inside the toolchain's container, as
# compile.sh would. OBJECTS are build targets, JOBS and ROCM as there; arguments
# are passed to CMake, objects go to /build/out.
tree=/build/tree
if [ -n "$ROCM" ]; then
	clang=$(hipconfig --hipclangpath 2>/dev/null || hipconfig -l)/clang++
	set -- "$@" "-DCMAKE_HIP_COMPILER=$clang"
fi
cmake -S /src -B $tree -G Ninja "$@" >/build/configure.log 2>&1 || { cat /build/configure.log; exit 1; }
# shellcheck disable=SC2086 # list of words
ninja -C $tree -j "$JOBS" $OBJECTS
mkdir /build/out
for object in $OBJECTS; do
	cp "$tree/$object" "/build/out/${object##*/}"
done
