# Links a libLLVM that holds only what a bundle's files take from it, out of the
# static libraries of the very build that the whole one was made by. Arguments:
# LLVM's major version, the SONAME, and the libraries that the whole one needs.
# In /src are package.deb (the static libraries and headers), stubs.cpp,
# targets.inc, wanted (a symbol a line) and versions.map. The result goes to
# /build/out.
major=$1
soname=$2
shift 2
dpkg-deb -x /src/package.deb /build/llvm
llvm=/build/llvm/usr
"clang++-$major" -std=c++17 -O2 -fPIC -fno-exceptions -fno-rtti -ffunction-sections \
	-fstack-protector-strong -fstack-clash-protection -fcf-protection -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 \
	-ffile-prefix-map=/src=. -ffile-prefix-map=/build=. \
	-I"$llvm/include/llvm-$major" -I"$llvm/include/llvm-c-$major" -I/src -c /src/stubs.cpp -o /build/stubs.o
sed 's/^/-Wl,--undefined=/' /src/wanted >/build/undefined
# Libraries that nothing is taken from are dropped (--as-needed). A symbol that
# is left undefined fails here, with its name (-z defs).
needed=
for library; do needed="$needed -l:$library"; done
mkdir /build/out
# shellcheck disable=SC2086 # a list of words
"clang++-$major" -shared -fuse-ld=lld -o "/build/out/$soname" /build/stubs.o @/build/undefined \
	"$llvm/lib/llvm-$major/lib/"libLLVM*.a -Wl,--as-needed $needed \
	"-Wl,-soname,$soname" -Wl,--version-script=/src/versions.map -Wl,--gc-sections -Wl,-O2 -Wl,-s -Wl,--build-id=none \
	-Wl,-z,defs,-z,nodelete,-z,relro,-z,now,-z,noexecstack,-z,pack-relative-relocs
