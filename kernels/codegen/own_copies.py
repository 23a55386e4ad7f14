"""A kernel keeps to its own copies of the functions that it calls, in every process.

Numba links what a kernel calls into the kernel's module, where LLVM optimises it again. The process
that compiles has the callee's own module, too, under the same names, and its linker takes that one;
all later processes load the kernel alone and take the copy. That is other machine code, which
rounds sums in another order. As private functions the copies are always taken, and a run has the
same bits from the first process on.
"""

import llvmlite.binding as llvm
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import AnalysisPass, register_pass
from numba.core.typed_passes import AnnotateTypes

# linkonce_odr: what a kernel calls; weak_odr: the loop over threads, to which it gives its address
COPIES = llvm.Linkage.linkonce_odr, llvm.Linkage.weak_odr


@register_pass(mutates_CFG=False, analysis_only=True)
class OwnCopies(AnalysisPass):
    """Have the library that is being compiled make the functions linked into it private."""

    _name = "npgpt_own_copies"

    def __init__(self):
        AnalysisPass.__init__(self)

    def run_pass(self, state):
        if state.library is None:  # as the lowering would make it
            state.library = state.targetctx.codegen().create_library(state.func_id.func_qualname)
            state.library.enable_object_caching()
        library = state.library
        optimize = library._optimize_final_module

        def optimize_with_own_copies():
            for function in library._final_module.functions:
                if function.linkage in COPIES:
                    function.linkage = "internal"
            optimize()

        library._optimize_final_module = optimize_with_own_copies
        return False


class Compiler(CompilerBase):
    """Numba's compiler with OwnCopies before the lowering."""

    def define_pipelines(self):
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        pipeline.add_pass_after(OwnCopies, AnnotateTypes)
        pipeline.finalize()
        return [pipeline]
