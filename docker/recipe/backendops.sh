# Compiles llama.cpp's test of the backends' operations inside the toolchain's
# container, and links it with the libraries of the core's compile, which are in
# /core. JOBS as in compile.sh; arguments are passed to CMake, the program goes to
# /build/out.
tree=/build/tree
object=tests/CMakeFiles/test-backend-ops.dir/test-backend-ops.cpp.o
cmake -S /src -B $tree -G Ninja "$@" >/build/configure.log 2>&1 || { cat /build/configure.log; exit 1; }
ninja -C $tree -j "$JOBS" $object
mkdir /build/out
g++ -pie -Wl,-z,relro,-z,now,-z,noexecstack -o /build/out/test-backend-ops \
	$tree/$object /core/libggml.so.0 /core/libggml-base.so.0
strip /build/out/test-backend-ops
chmod 0755 /build/out/test-backend-ops
