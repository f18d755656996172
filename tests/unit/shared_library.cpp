// A library that is loaded when it is needed, one that is not there, and one without what is asked of it.
#include "comm/base/shared_library.h"

#include "tests/support/catch.h"

namespace switchyard {
namespace {

TEST_CASE("a shared library gives its functions, or says what is missing") {
  const SharedLibrary mathematics("libm.so.6");
  REQUIRE(mathematics.is_there());
  double (*cosine)(double) = nullptr;
  mathematics.find("cos", cosine);
  CHECK(cosine(0.0) == 1.0);
  CHECK_THROWS_WITH(mathematics.find("no_such_function", cosine), Catch::Contains("libm.so.6 lacks no_such_function"));

  const SharedLibrary none("libnone-of-this-name.so.7");
  CHECK_FALSE(none.is_there());
  CHECK_THROWS_WITH(none.find("cos", cosine), Catch::Contains("libnone-of-this-name.so.7 cannot be loaded: "));
}

}  // namespace
}  // namespace switchyard
