// What weft::compiled holds: the common instantiations, as macros over `how`, which is `template` in cmake/weft.cpp and
// `extern template` in weft/compiled.hpp. A public op belongs here, once, for the types that programs use it with; its kernels and
// its backward follow from it. What is missing is compiled where it is used: slower, never wrong. To see what a program still
// compiles itself: nm -C --defined-only program.o | grep ' W weft'.
#pragma once

/// What the tape does with a tensor of any type that carries gradients.
#define WEFT_TAPE_OF(how, T)                                                                                            \
  how class Tensor<T, cpu>;                                                                                             \
  how class Grad<T, cpu>;                                                                                               \
  how class Saved<T, cpu>;                                                                                              \
  how void Tape::backward(const Tensor<T, cpu>&, Where);                                                                \
  how void Tape::backward(const Tensor<T, cpu>&, const Tensor<T, cpu>&, Where);                                         \
  how void kernels::fill<T>(cpu, T, Out<T, cpu>);                                                                       \
  how void kernels::map<kernels::Copy, T, T>(cpu, kernels::Copy, Out<T, cpu>, In<T, cpu>);                              \
  how void detail::complete<T, cpu>(Slot&);                                                                             \
  how int detail::begin_write<T, cpu>(Slot&);                                                                           \
  how Tensor<T, cpu> detail::gradient<T, cpu>(Slot&);

/// Ops of any element type.
#define WEFT_OPS_OF_ANY(how, T)                                                                                         \
  how std::string to_string(const Tensor<T, cpu>&);                                                                     \
  how Tensor<T, cpu> full<T, cpu>(const Shape&, T);                                                                     \
  how Tensor<T, cpu> from_span<T, cpu>(std::span<const T>, const Shape&, Where);                                        \
  how Tensor<T, cpu> contiguous(const Tensor<T, cpu>&, bool, Where);                                                    \
  how Tensor<T, cpu> reshape(const Tensor<T, cpu>&, Shape, Where);                                                      \
  how Tensor<T, cpu> permute(const Tensor<T, cpu>&, const Dims&, Where);                                                \
  how Tensor<T, cpu> slice(const Tensor<T, cpu>&, Index, Index, Index, Where);                                          \
  how Tensor<T, cpu> squeeze(const Tensor<T, cpu>&, Index, Where);                                                      \
  how Tensor<T, cpu> unsqueeze(const Tensor<T, cpu>&, Index, Where);                                                    \
  how Tensor<T, cpu> expand(const Tensor<T, cpu>&, const Shape&, Where);                                                \
  how std::array<Tensor<T, cpu>, 2> split(const Tensor<T, cpu>&, const Index (&)[2], Index, Where);                     \
  how std::array<Tensor<T, cpu>, 3> split(const Tensor<T, cpu>&, const Index (&)[3], Index, Where);                     \
  how Tensor<T, cpu> concat(const std::vector<Tensor<T, cpu>>&, Index, Where);                                          \
  how Tensor<bool, cpu> equal(const Tensor<T, cpu>&, const Tensor<T, cpu>&, Where);                                     \
  how Tensor<bool, cpu> less(const Tensor<T, cpu>&, const Tensor<T, cpu>&, Where);

/// Ops of real tensors.
#define WEFT_OPS_OF_REAL(how, T)                                                                                        \
  how Tensor<T, cpu> add(const Tensor<T, cpu>&, const Tensor<T, cpu>&, Where);                                          \
  how Tensor<T, cpu> sub(const Tensor<T, cpu>&, const Tensor<T, cpu>&, Where);                                          \
  how Tensor<T, cpu> mul(const Tensor<T, cpu>&, const Tensor<T, cpu>&, Where);                                          \
  how Tensor<T, cpu> div(const Tensor<T, cpu>&, const Tensor<T, cpu>&, Where);                                          \
  how Tensor<T, cpu> add(const Tensor<T, cpu>&, double, Where);                                                         \
  how Tensor<T, cpu> mul(const Tensor<T, cpu>&, double, Where);                                                         \
  how Tensor<T, cpu> neg(const Tensor<T, cpu>&, Where);                                                                 \
  how Tensor<T, cpu> exp(const Tensor<T, cpu>&, Where);                                                                 \
  how Tensor<T, cpu> log(const Tensor<T, cpu>&, Where);                                                                 \
  how Tensor<T, cpu> sqrt(const Tensor<T, cpu>&, Where);                                                                \
  how Tensor<T, cpu> reciprocal(const Tensor<T, cpu>&, Where);                                                          \
  how Tensor<T, cpu> tanh(const Tensor<T, cpu>&, Where);                                                                \
  how Tensor<T, cpu> sigmoid(const Tensor<T, cpu>&, Where);                                                             \
  how Tensor<T, cpu> relu(const Tensor<T, cpu>&, Where);                                                                \
  how Tensor<T, cpu> silu(const Tensor<T, cpu>&, Where);                                                                \
  how Tensor<T, cpu> gelu(const Tensor<T, cpu>&, Where);                                                                \
  how Tensor<T, cpu> gelu_tanh(const Tensor<T, cpu>&, Where);                                                           \
  how Tensor<T, cpu> swiglu(const Tensor<T, cpu>&, const Tensor<T, cpu>&, Where);                                       \
  how Tensor<T, cpu> sum(const Tensor<T, cpu>&, const Dims&, bool, Where);                                              \
  how Tensor<T, cpu> mean(const Tensor<T, cpu>&, const Dims&, bool, Where);                                             \
  how Tensor<T, cpu> max(const Tensor<T, cpu>&, const Dims&, bool, Where);                                              \
  how Tensor<T, cpu> norm(const Tensor<T, cpu>&, const Dims&, bool, Where);                                             \
  how Tensor<std::int64_t, cpu> argmax(const Tensor<T, cpu>&, Index, Where);                                            \
  how TopK<T, cpu> topk(const Tensor<T, cpu>&, Index, Where);                                                           \
  how Tensor<T, cpu> gather(const Tensor<T, cpu>&, const Tensor<std::int64_t, cpu>&, Index, Where);                     \
  how Tensor<T, cpu> softmax(const Tensor<T, cpu>&, Where);                                                             \
  how Tensor<T, cpu> log_softmax(const Tensor<T, cpu>&, Where);                                                         \
  how Tensor<T, cpu> dropout(const Tensor<T, cpu>&, double, Where);                                                     \
  how Tensor<T, cpu> matmul(const Tensor<T, cpu>&, const Tensor<T, cpu>&, Where);                                       \
  how Tensor<T, cpu> rope(const Tensor<T, cpu>&, double, Index, Where);                                                 \
  how Tensor<T, cpu> attention(const Tensor<T, cpu>&, const Tensor<T, cpu>&, const Tensor<T, cpu>&, AttentionOptions,   \
                               const Tensor<std::int32_t, cpu>&, Where);                                                \
  how Tensor<T, cpu> expert_dispatch(const Tensor<T, cpu>&, const ExpertPlan<cpu>&, Where);                             \
  how Tensor<T, cpu> expert_combine(const Tensor<T, cpu>&, const Tensor<stat_t<T>, cpu>&, const ExpertPlan<cpu>&,       \
                                    Where);                                                                             \
  how Loss<stat_t<T>, cpu> cross_entropy(const Tensor<T, cpu>&, const Tensor<std::int64_t, cpu>&, Where);               \
  how Tensor<T, cpu> randn<T, cpu>(const Shape&, std::uint64_t, double, double);                                        \
  how Tensor<T, cpu> uniform<T, cpu>(const Shape&, std::uint64_t, double, double);

/// Ops of activations of type T and weights of type W.
#define WEFT_OPS_OF_WEIGHTS(how, T, W)                                                                                  \
  how Tensor<T, cpu> linear(const Tensor<T, cpu>&, const Tensor<W, cpu>&, const Tensor<W, cpu>&, Where);                \
  how Tensor<T, cpu> gelu_mlp(const Tensor<T, cpu>&, const Tensor<W, cpu>&, const Tensor<W, cpu>&,                      \
                              const Tensor<W, cpu>&, const Tensor<W, cpu>&, Where);                                     \
  how Tensor<T, cpu> embedding<T, W, cpu>(const Tensor<std::int64_t, cpu>&, const Tensor<W, cpu>&, Where);              \
  how Tensor<T, cpu> layer_norm(const Tensor<T, cpu>&, const Tensor<W, cpu>&, const Tensor<W, cpu>&, double, Where);    \
  how Tensor<T, cpu> rms_norm(const Tensor<T, cpu>&, const Tensor<W, cpu>&, double, Where);                             \
  how AddNorm<T, cpu> add_rms_norm(const Tensor<T, cpu>&, const Tensor<T, cpu>&, const Tensor<W, cpu>&, double, Where); \
  how AddNorm<T, cpu> add_layer_norm(const Tensor<T, cpu>&, const Tensor<T, cpu>&, const Tensor<W, cpu>&,               \
                                     const Tensor<W, cpu>&, double, Where);                                             \
  how Tensor<T, cpu> grouped_linear(const Tensor<T, cpu>&, const Tensor<W, cpu>&, const Tensor<std::int64_t, cpu>&,     \
                                    Where);                                                                             \
  how Tensor<T, cpu> expert_swiglu(const Tensor<T, cpu>&, const Tensor<stat_t<T>, cpu>&, const Tensor<W, cpu>&,         \
                                   const Tensor<W, cpu>&, const Tensor<W, cpu>&, const ExpertPlan<cpu>&, Where);        \
  how Loss<stat_t<T>, cpu> linear_cross_entropy(const Tensor<T, cpu>&, const Tensor<W, cpu>&,                           \
                                                const Tensor<std::int64_t, cpu>&, Where);

/// Between two types.
#define WEFT_OPS_BETWEEN(how, To, From)                                                                                 \
  how Tensor<To, cpu> cast<To, From, cpu>(const Tensor<From, cpu>&, Where);                                             \
  how void kernels::map<kernels::Copy, To, From>(cpu, kernels::Copy, Out<To, cpu>, In<From, cpu>);

/// Kernels that modules and optimizers call without an op.
#define WEFT_KERNELS_OF(how, W)                                                                                         \
  how void kernels::normal_fill<W>(cpu, RandomKey, double, double, Index, Out<W, cpu>);                                 \
  how void kernels::adamw_step<W, param_grad_t<W>, stat_t<W>>(cpu, Out<W, cpu>, Out<stat_t<W>, cpu>,                    \
                                                              In<param_grad_t<W>, cpu>, Out<stat_t<W>, cpu>,            \
                                                              Out<stat_t<W>, cpu>, const kernels::AdamWArgs&,           \
                                                              In<float, cpu>);
#define WEFT_KERNELS_OF_BF16(how)                                                                                       \
  how void kernels::adamw_step<bf16, float, bf16>(cpu, Out<bf16, cpu>, Out<float, cpu>, In<float, cpu>, Out<bf16, cpu>, \
                                                  Out<bf16, cpu>, const kernels::AdamWArgs&, In<float, cpu>);

/// The modules of a decoder with activations and weights of type T, and what a training program does with it.
#define WEFT_MODEL_OF(how, T)                                                                                           \
  how struct nn::Parameter<T, cpu>;                                                                                     \
  how struct nn::Linear<T, T, cpu>;                                                                                     \
  how struct nn::Embedding<T, T, cpu>;                                                                                  \
  how struct nn::LayerNorm<T, T, cpu>;                                                                                  \
  how struct nn::RMSNorm<T, T, cpu>;                                                                                    \
  how struct nn::AnyNorm<T, T, cpu>;                                                                                    \
  how struct nn::RotaryEmbedding<T, cpu>;                                                                               \
  how struct nn::KVCache<T, cpu>;                                                                                       \
  how struct nn::Attention<T, T, cpu>;                                                                                  \
  how struct nn::MLP<T, T, cpu>;                                                                                        \
  how struct nn::SwiGLU<T, T, cpu>;                                                                                     \
  how struct nn::MoE<T, T, cpu>;                                                                                        \
  how struct nn::Block<T, T, cpu>;                                                                                      \
  how struct nn::Transformer<T, T, cpu>;                                                                                \
  how void nn::name_parts(const nn::Transformer<T, T, cpu>&, const std::string&);                                      \
  how void nn::materialise(const nn::Transformer<T, T, cpu>&, std::uint64_t);                                          \
  how Index nn::count_parameters(const nn::Transformer<T, T, cpu>&);                                                   \
  how void nn::zero_grad(const nn::Transformer<T, T, cpu>&);                                                           \
  how std::vector<std::int64_t> nn::generate(const nn::Transformer<T, T, cpu>&, std::vector<std::int64_t>, Index, nn::Sampling, \
                                             Where);                                                                    \
  how optim::AdamW<cpu>::AdamW(const nn::Transformer<T, T, cpu>&, optim::AdamWConfig);                                 \
  how optim::AdamW<cpu>::AdamW(const nn::Transformer<T, T, cpu>&, Communicator&, optim::AdamWConfig, Where);           \
  how void io::save(const nn::Transformer<T, T, cpu>&, optim::AdamW<cpu>&, const std::string&,                         \
                    std::map<std::string, std::string>, Where);                                                         \
  how io::Digest io::save(const nn::Transformer<T, T, cpu>&, const std::string&, std::map<std::string, std::string>, Where); \
  how void io::load(const nn::Transformer<T, T, cpu>&, const std::string&, Where);                                     \
  how std::string io::save_checkpoint(const std::string&, Index, const nn::Transformer<T, T, cpu>&, optim::AdamW<cpu>&, \
                                      const io::Options&, Where);                                                       \
  how std::string io::load_checkpoint(const io::Newest&, const nn::Transformer<T, T, cpu>&, optim::AdamW<cpu>&, Where); \
  how double train::evaluate(const nn::Transformer<T, T, cpu>&, const train::Windows&, Index, Index, Communicator*);
