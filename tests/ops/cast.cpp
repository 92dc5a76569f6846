#include "weft/ops/cast.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("cast: values", "[cast]") {
  const auto x = from_vector<float>({-1.75F, -0.5F, 0, 1.5F, 100.25F});
  CHECK(cast<std::int32_t>(x).to_vector() == std::vector<std::int32_t>{-1, 0, 0, 1, 100});
  CHECK(cast<std::int64_t>(x).to_vector() == std::vector<std::int64_t>{-1, 0, 0, 1, 100});
  CHECK(cast<bool>(x).to_vector() == std::vector<bool>{1, 1, 0, 1, 1});
  CHECK(cast<double>(x).to_vector() == std::vector<double>{-1.75, -0.5, 0, 1.5, 100.25});
  CHECK(cast<float>(from_vector<std::uint8_t>({0, 255})).to_vector() == std::vector<float>{0, 255});
  CHECK(cast<float>(from_vector<bool>({true, false})).to_vector() == std::vector<float>{1, 0});
  CHECK(doubles(cast<bf16>(from_vector<double>({1 + 0x1p-9, 1 + 0x1.8p-8, -3, 0.1}))) ==
        std::vector<double>{1, 1 + 0x1p-7, -3, 0.10009765625});  // to nearest, ties to even
  CHECK(doubles(cast<f16>(from_vector<double>({1 + 0x1p-11, 1 + 0x1.8p-10, -3, 0.1, 1e5}))) ==
        std::vector<double>{1, 1 + 0x1p-9, -3, 0.0999755859375, INFINITY});
  CHECK(cast<float>(x).storage() == x.storage());
}

TEST_CASE("cast: gradients are cast back", "[cast]") {
  for_cases(0, [&](const Case& c) {  // exact in float, so that differences see no rounding
    auto x = values(c.base).require_grad();
    Tape tape;
    const Tensor<float> y = cast<float>(c.view(x));
    CHECK(doubles(y) == doubles(c.view(x)));
    const auto dy = in_type<float>(values(y.shape(), 2));
    tape.backward(y, dy);
    auto same = values(c.base).require_grad();
    Tape plain;
    const auto z = contiguous(c.view(same), true);
    plain.backward(z, in_type<double>(values(y.shape(), 2)));
    CHECK(doubles(gradient(x)) == doubles(gradient(same)));
  });
}

TEST_CASE("cast: through bf16 and back, threads", "[cast]") {
  const auto fn = [](const auto& x) { return cast<float>(cast<bf16>(cast<double>(x))); };
  check_thread_bits<float>(fn, values({97, 131}));
  check_thread_bits<double>(fn, values({97, 131}));
  check_against_double<bf16>(fn, 0x1p-8, values({97, 131}));  // dy is exact in bf16, the result rounds once
  check_against_double<float>(fn, 0, values({97, 131}));
  const auto half = [](const auto& x) { return cast<float>(cast<f16>(x)); };
  check_thread_bits<float>(half, values({97, 131}));
  check_against_double<f16>(half, 0x1p-11, values({97, 131}));
}
