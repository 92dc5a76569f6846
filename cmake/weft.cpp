// The common instantiations, compiled once: what weft::compiled is. Compiled once a part, each with one WEFT_PART_... defined, so
// that several cores share the work.
#include <weft/compiled_list.hpp>
#if defined(WEFT_PART_io)
#include <weft/io/manifest.hpp>
#include <weft/io/safetensors.hpp>
#elif defined(WEFT_PART_model_float) || defined(WEFT_PART_model_bf16)
#define WEFT_COMPILED  // ops and readers of JSON are in other parts
#define WEFT_COMPILING_MODELS
#include <weft/weft.hpp>
#else
#include <weft/ops.hpp>
#include <weft/optim.hpp>
#endif

namespace weft::inline WEFT_ABI {

#if defined(WEFT_PART_io)
template io::Header io::detail::parse_header<char>(std::span<const char>, std::uint64_t, std::string_view, Where);
template io::Manifest io::detail::parse_manifest<char>(std::string_view, std::string_view, Where);
#elif defined(WEFT_PART_float)
WEFT_TAPE_OF(template, float)
WEFT_OPS_OF_ANY(template, float)
WEFT_OPS_OF_REAL(template, float)
WEFT_OPS_OF_WEIGHTS(template, float, float)
WEFT_KERNELS_OF(template, float)
template class Loss<float, cpu>;
template void Tape::backward(const Loss<float, cpu>&, Where);
#elif defined(WEFT_PART_double)
WEFT_TAPE_OF(template, double)
WEFT_OPS_OF_ANY(template, double)
WEFT_OPS_OF_REAL(template, double)
WEFT_OPS_OF_WEIGHTS(template, double, double)
WEFT_KERNELS_OF(template, double)
template class Loss<double, cpu>;
template void Tape::backward(const Loss<double, cpu>&, Where);
#elif defined(WEFT_PART_bf16)
WEFT_TAPE_OF(template, bf16)
WEFT_OPS_OF_ANY(template, bf16)
WEFT_OPS_OF_REAL(template, bf16)
WEFT_OPS_OF_WEIGHTS(template, bf16, bf16)
WEFT_OPS_OF_WEIGHTS(template, float, bf16)
WEFT_OPS_BETWEEN(template, float, bf16)
WEFT_OPS_BETWEEN(template, bf16, float)
WEFT_KERNELS_OF(template, bf16)
WEFT_KERNELS_OF_BF16(template)
#elif defined(WEFT_PART_integers)
template class Tensor<std::int64_t, cpu>;
WEFT_OPS_OF_ANY(template, std::int64_t)
WEFT_OPS_BETWEEN(template, float, std::int64_t)
template ExpertPlan<cpu> expert_plan(const Tensor<std::int64_t, cpu>&, Index, Where);
#elif defined(WEFT_PART_model_float)
template class optim::AdamW<cpu>;
WEFT_MODEL_OF(template, float)
#elif defined(WEFT_PART_model_bf16)
WEFT_MODEL_OF(template, bf16)
#else
#error "weft: expected one of the parts that cmake/WeftTarget.cmake lists"
#endif

}  // namespace weft::inline WEFT_ABI
