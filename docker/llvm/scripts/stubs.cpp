// What the code generator asks of libLLVM, and a bundle's libLLVM does without.
// It is compiled against LLVM's own headers, so that a changed declaration is
// an error.
#include "llvm/Config/llvm-config.h"
#include "llvm/Passes/PassPlugin.h"
#include "llvm/Support/ErrorHandling.h"
#include "llvm/Support/SMTAPI.h"
#include "llvm/Support/raw_ostream.h"

// Sets up a target of which nothing is there: looking it up later gives LLVM's
// own error about an unknown target.
#define NO_TARGET(function) \
  extern "C" void function(); \
  extern "C" void function() {}
#include "targets.inc"

// clang hands Polly its pipeline at each start; without an option that asks for
// Polly, nothing comes of it.
llvm::PassPluginLibraryInfo getPollyPluginInfo();
llvm::PassPluginLibraryInfo getPollyPluginInfo() {
  return {LLVM_PLUGIN_API_VERSION, "Polly", LLVM_VERSION_STRING, [](llvm::PassBuilder &) {}};
}

// clang's static analyzer may check its paths with a solver when an option asks
// for it. An LLVM configured without Z3 ends here as well.
llvm::SMTSolverRef llvm::CreateZ3Solver() {
  llvm::report_fatal_error("this libLLVM has no Z3 solver", false);
}
void llvm::SMTSolver::dump() const { print(llvm::errs()); }
