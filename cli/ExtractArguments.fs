/// What `cmcl extract` takes.
module Cmcl.Cli.ExtractArguments

open Argu

[<RequireQualifiedAccess>]
type ExtractArgument =
    | [<MainCommand; ExactlyOnce>] Files of ENCODER: string * MANIFEST: string
    | [<Mandatory; AltCommandLine("-o")>] Out of FILE: string
    | Batch of N: int
    | Dtype of NAME: string
    | Device of NAME: string
    | Threads of N: int
    | Skip_Missing
    | Skip_Unreadable
    | Restart
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Files _ ->
                "the encoder: its description (.json), or its name where cmcl encoders has it; and what to encode: .csv or .jsonl with id, path or text, and if wanted label and sha256"
            | Out _ -> "the .npy file for the features; ids and a list of the items go beside it, and labels where there are any"
            | Batch _ -> "items that go through the encoder at once (default: 32)"
            | Dtype _ -> "float32 (default) or float16"
            | Device _ -> "cpu (default), cuda or cuda:N, for TorchScript encoders"
            | Threads _ -> "threads of the encoder (default: one for each core)"
            | Skip_Missing -> "go on without items whose file is not there"
            | Skip_Unreadable -> "go on without items whose file cannot be read"
            | Restart -> "forget what an earlier, unfinished extraction has done"
            | Force -> "replace a file that is there"
            | Quiet -> "print nothing but errors"
