// Inspect raw camera frames with an exported graph, in C#; what cpp/inspect.cpp does.
//
//   stlm export model.safetensors -o part.onnx --frame-size 480x640
//   dotnet run -- part.onnx frame.bgr [more.bgr ...]
//
// A frame is height x width x 3 bytes, blue, green, red, row by row. Exit code: 0 all good, 3 something is anomalous.

using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.OnnxRuntime.Tensors;

static class Inspect
{
    static int Main(string[] arguments)
    {
        if (arguments.Length < 2)
        {
            Console.Error.WriteLine("usage: Inspect GRAPH.onnx FRAME.bgr [FRAME.bgr ...]");
            return 2;
        }
        try
        {
            return Run(arguments[0], arguments.Skip(1));
        }
        catch (Exception error) when (error is OnnxRuntimeException || error is IOException || error is InvalidDataException || error is UnauthorizedAccessException)
        {
            Console.Error.WriteLine("error: " + error.Message);
            return 1;
        }
    }

    static int Run(string graph, IEnumerable<string> frames)
    {
        using (var session = new InferenceSession(graph))
        {
            var told = session.ModelMetadata.CustomMetadataMap;
            if (Required(told, "channel_order") != "BGR")
                throw new InvalidDataException("the graph takes " + told["stlm_edge.channel_order"] + ", this program has BGR");
            // Whole camera frames where the graph resizes them itself.
            int[] size = Required(told, told.ContainsKey("stlm_edge.frame_size") ? "frame_size" : "input_size")
                .Split('x').Select(int.Parse).ToArray();
            double threshold = Number(Required(told, "threshold"));
            double unclear = told.TryGetValue("stlm_edge.unclear_threshold", out string second) ? Number(second) : threshold;
            bool found = false;
            foreach (string frame in frames)
            {
                byte[] pixels = File.ReadAllBytes(frame);
                if (pixels.Length != size[0] * size[1] * 3)
                    throw new InvalidDataException($"{frame} has {pixels.Length} bytes, expected {size[0]} x {size[1]} pixels in BGR");
                var image = new DenseTensor<byte>(pixels, new[] { 1, size[0], size[1], 3 });
                using (var answers = session.Run(new[] { NamedOnnxValue.CreateFromTensor("image", image) }, new[] { "score" }))
                {
                    float score = answers.First().AsEnumerable<float>().First();
                    if (float.IsNaN(score) || float.IsInfinity(score))
                        throw new InvalidDataException(frame + " has no score, so it is not good either");
                    string verdict = score >= threshold ? "anomalous" : score >= unclear ? "unclear" : "good";
                    found |= score >= threshold;
                    Console.WriteLine($"{frame}\t{score.ToString("G7", CultureInfo.InvariantCulture)}\t{verdict}");
                }
            }
            return found ? 3 : 0;
        }
    }

    static string Required(IDictionary<string, string> told, string name)
    {
        if (told.TryGetValue("stlm_edge." + name, out string text))
            return text;
        throw new InvalidDataException("the graph has no stlm_edge." + name + "; export it again with stlm-edge 0.2 or later");
    }

    static double Number(string text) => double.Parse(text, CultureInfo.InvariantCulture);
}
