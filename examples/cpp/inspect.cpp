// Inspect raw camera frames with an exported graph, without Python.
//
//   stlm export model.safetensors -o part.onnx --frame-size 480x640
//   g++ -std=c++17 -O2 inspect.cpp -I$ORT/include -L$ORT/lib -Wl,-rpath,$ORT/lib -lonnxruntime -o inspect
//   ./inspect part.onnx frame.bgr [more.bgr ...] [--threshold 0.31]
//
// A frame is height x width x 3 bytes, blue, green, red, row by row, as cameras and OpenCV hand them over. Sizes and
// threshold come from the graph's own metadata. Exit code: 0 all good, 3 something is anomalous, 1 an error, 2 wrong usage.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <locale>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <onnxruntime_cxx_api.h>

namespace {

struct Size {
  int64_t height = 0, width = 0;
};

// Whatever locale the host program has: with a decimal comma, as Qt and GTK take it from the system, std::stod reads
// 0.31 as 0.
double number_from(const std::string& text, const std::string& what) {
  std::istringstream stream(text);
  stream.imbue(std::locale::classic());
  double value = 0;
  if (!(stream >> value) || !stream.eof() || !std::isfinite(value))
    throw std::runtime_error(what + " is " + text + ", expected a number");
  return value;
}

// What the graph says of itself: entries of its metadata, all of them text.
class Metadata {
 public:
  explicit Metadata(const Ort::Session& session) : metadata_(session.GetModelMetadata()) {}

  std::optional<std::string> text(const char* name) const {
    auto value = metadata_.LookupCustomMetadataMapAllocated((std::string("stlm_edge.") + name).c_str(), allocator_);
    return value ? std::optional<std::string>(value.get()) : std::nullopt;
  }

  std::optional<double> number(const char* name) const {
    const auto found = text(name);
    return found ? std::optional<double>(number_from(*found, name)) : std::nullopt;
  }

  std::string required(const char* name) const {
    if (auto found = text(name)) return *found;
    throw std::runtime_error(std::string("the graph has no stlm_edge.") + name +
                             " in its metadata; export it again with stlm-edge 0.2 or later");
  }

  // Of the pictures that the graph takes: whole camera frames where it resizes them itself.
  Size picture_size() const {
    Size size;
    const std::string told = text("frame_size").value_or(required("input_size"));
    char rest = 0;
    long long height = 0, width = 0;
    if (std::sscanf(told.c_str(), "%lldx%lld%c", &height, &width, &rest) != 2 || height < 1 || width < 1)
      throw std::runtime_error("the graph's size is " + told + ", expected HEIGHTxWIDTH");
    size.height = height, size.width = width;
    return size;
  }

 private:
  Ort::ModelMetadata metadata_;
  mutable Ort::AllocatorWithDefaultOptions allocator_;
};

std::vector<uint8_t> read_frame(const std::string& path, Size size) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw std::runtime_error(path + " cannot be read; check the path");
  const auto expected = static_cast<std::streamoff>(size.height * size.width * 3);
  if (file.tellg() != expected)
    throw std::runtime_error(path + " has " + std::to_string(file.tellg()) + " bytes, expected " +
                             std::to_string(expected) + ": " + std::to_string(size.height) + " x " +
                             std::to_string(size.width) + " pixels in BGR");
  std::vector<uint8_t> pixels(static_cast<size_t>(expected));
  file.seekg(0).read(reinterpret_cast<char*>(pixels.data()), expected);
  return pixels;
}

struct Answer {
  float score;
  Size peak;  // of the anomaly map, in pixels of the frame
};

Answer inspect(Ort::Session& session, std::vector<uint8_t>& pixels, Size size) {
  const std::array<int64_t, 4> shape{1, size.height, size.width, 3};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto image =
      Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(), shape.data(), shape.size());
  const std::array<const char*, 1> inputs{"image"};
  const std::array<const char*, 2> outputs{"score", "anomaly_map"};
  const auto answers =
      session.Run(Ort::RunOptions{nullptr}, inputs.data(), &image, 1, outputs.data(), outputs.size());
  const auto map_shape = answers[1].GetTensorTypeAndShapeInfo().GetShape();  // 1, height, width
  const float* map = answers[1].GetTensorData<float>();
  const int64_t cell = std::max_element(map, map + map_shape[1] * map_shape[2]) - map;
  const int64_t row = cell / map_shape[2], column = cell % map_shape[2];
  return {*answers[0].GetTensorData<float>(),
          {(2 * row + 1) * size.height / (2 * map_shape[1]), (2 * column + 1) * size.width / (2 * map_shape[2])}};
}

int run(const std::vector<std::string>& arguments) {
  std::optional<double> by_hand;
  std::vector<std::string> files;
  bool wrong = false;
  for (size_t index = 0; index < arguments.size(); ++index) {
    if (arguments[index] == "--threshold" && index + 1 < arguments.size())
      by_hand = number_from(arguments[++index], "--threshold");
    else if (arguments[index].rfind("--", 0) == 0)
      wrong = true;
    else
      files.push_back(arguments[index]);
  }
  if (wrong || files.size() < 2) {
    std::fputs("usage: inspect GRAPH.onnx FRAME.bgr [FRAME.bgr ...] [--threshold SCORE]\n", stderr);
    return 2;
  }
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "stlm");
  Ort::SessionOptions options;
  Ort::Session session(env, files[0].c_str(), options);  // on Windows the path is a std::wstring
  const Metadata metadata(session);
  const std::string order = metadata.required("channel_order");
  if (order != "BGR") throw std::runtime_error("the graph takes " + order + ", this program has BGR");
  const Size size = metadata.picture_size();
  const double threshold = by_hand ? *by_hand : number_from(metadata.required("threshold"), "threshold");
  const std::optional<double> unclear = by_hand ? std::nullopt : metadata.number("unclear_threshold");
  bool found = false;
  for (size_t index = 1; index < files.size(); ++index) {
    auto pixels = read_frame(files[index], size);
    const Answer answer = inspect(session, pixels, size);
    if (!std::isfinite(answer.score)) throw std::runtime_error(files[index] + " has no score, so it is not good either");
    const char* verdict = answer.score >= threshold ? "anomalous" : unclear && answer.score >= *unclear ? "unclear" : "good";
    found = found || answer.score >= threshold;
    std::printf("%s\t%.7g\t%s\tpeak at row %lld, column %lld\n", files[index].c_str(), answer.score, verdict,
                static_cast<long long>(answer.peak.height), static_cast<long long>(answer.peak.width));
  }
  return found ? 3 : 0;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return run({arguments + 1, arguments + count});
  } catch (const std::exception& error) {  // Ort::Exception too
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
