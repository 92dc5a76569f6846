// AdamW's kernels on the GPU against the CPU's.
#include <array>
#include <cmath>

#include "support.hpp"
#include "weft/kernels/cpu/adamw.hpp"
#include "weft/kernels/cuda/adamw.hpp"

using namespace weft;

TEST_CASE("AdamW with bf16 moments rounds by the CPU's random bits") {
  for (const Index n : {1, 7, 8, 4097, 100003})
    for (const Index first : {0, 3, 8192}) {
      INFO("n " << n << ", first " << first);
      kernels::AdamWArgs args{3e-2, 0.9, 0.95, 1e-8, 0.1, 1 - std::pow(0.9, 3), 1 - std::pow(0.95, 3)};
      args.rounding = {philox_key(mix(5, "path")), 3, 0};
      args.first = first;
      const auto step = [&]<class D>(D) {
        const auto on = [](const auto& x) { return to<D>(x); };
        const Tensor<float, D> grad = on(randn<float, cpu>({n}, 1));
        const Tensor<bf16, D> p = on(randn<bf16, cpu>({n}, 2)), m = on(randn<bf16, cpu>({n}, 3)), v = on(uniform<bf16, cpu>({n}, 4, 0.1, 1));
        const auto flat = [n]<class T>(const Tensor<T, D>& x) { return Out<T, D>{x.data(), {n}, {1}, 0}; };
        kernels::adamw_step<bf16, float, bf16>(D{}, flat(p), {}, flat(grad), flat(m), flat(v), args, {});
        return std::array{p.to_vector(), m.to_vector(), v.to_vector()};
      };
      const auto host = step(cpu{}), device = step(cuda{});
      for (std::size_t what = 0; what < 3; ++what) {
        Index differ = 0, most = 0;
        for (std::size_t i = 0; i < host[what].size(); ++i) {
          const Index d = std::abs(static_cast<Index>(host[what][i].bits) - static_cast<Index>(device[what][i].bits));
          differ += d != 0;
          most = std::max(most, d);
        }
        INFO("of " << (what == 0 ? "p" : what == 1 ? "m" : "v"));
        if (what > 0) CHECK(differ == 0);  // each operation is the same
        CHECK(differ <= n / 1000);         // the GPU fuses one product: 2^-24 of a value, of which 2^-8 is cut off at random
        CHECK(most <= 1);
      }
    }
}
