# Runs the probe with the toolchain's whole libLLVM and with the bundle's, each
# over everything in /src, and compares all that comes out. /src/bundle holds
# the bundle's libraries with its loader.
cd /build
cc -O1 -o probe /src/probe.c -lamd_comgr
mkdir whole ours
./probe whole / /src/code/* /src/kernels/*
/src/bundle/ld-linux-x86-64.so.2 --library-path /src/bundle ./probe ours /src/bundle/ /src/code/* /src/kernels/*
diff -r whole ours >/build/differences || { head -n 40 /build/differences; exit 1; }
find ours -type f | wc -l | sed 's/$/ results are the same with the whole libLLVM/'
