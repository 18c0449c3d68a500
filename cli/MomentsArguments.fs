/// What `cmcl moments` takes.
module Cmcl.Cli.MomentsArguments

open Argu

[<RequireQualifiedAccess>]
type AccumulateArgument =
    | [<MainCommand; ExactlyOnce>] Shards of FILE: string list
    | [<Mandatory; AltCommandLine("-o")>] Out of FILE: string
    | Threads of N: int
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Shards _ -> ".npy files of features, one row an item, all of one width"
            | Out _ -> "the .safetensors file for the moment"
            | Threads _ -> "threads of libtorch (default: one for each core)"
            | Force -> "replace a file that is there"
            | Quiet -> "print nothing but errors"

[<RequireQualifiedAccess>]
type MergeArgument =
    | [<MainCommand; ExactlyOnce>] Moments of FILE: string list
    | [<Mandatory; AltCommandLine("-o")>] Out of FILE: string
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Moments _ -> "files that cmcl moments wrote, all of one kind"
            | Out _ -> "the .safetensors file for the moments of all their rows"
            | Force -> "replace a file that is there"
            | Quiet -> "print nothing but errors"

[<RequireQualifiedAccess>]
type PairArgument =
    | [<MainCommand; ExactlyOnce>] Files of A: string * B: string
    | [<Mandatory; AltCommandLine("-o")>] Out of FILE: string
    | Features of VALUE: string
    | Seed of N: int
    | Threads of N: int
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Files _ -> "MODALITY=FILE.npy of both, such as vision=pictures.npy text=captions.npy, matched row by row"
            | Out _ -> "the .safetensors file for the moments"
            | Features _ -> "what stands beside the features: raw (default, nothing), relu:D or cos:D, as --features of cmcl run"
            | Seed _ -> "the seed that draws it (default: 0); the same for all that is merged"
            | Threads _ -> "threads of libtorch (default: one for each core)"
            | Force -> "replace a file that is there"
            | Quiet -> "print nothing but errors"

[<RequireQualifiedAccess>]
type SubtractArgument =
    | [<MainCommand; ExactlyOnce>] Moments of WHOLE_AND_PARTS: string list
    | [<Mandatory; AltCommandLine("-o")>] Out of FILE: string
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Moments _ -> "a file of moments of pairs, and those that are to be taken off it"
            | Out _ -> "the .safetensors file for what is left"
            | Force -> "replace a file that is there"
            | Quiet -> "print nothing but errors"

[<RequireQualifiedAccess>]
type MomentsArgument =
    | [<CliPrefix(CliPrefix.None)>] Accumulate of ParseResults<AccumulateArgument>
    | [<CliPrefix(CliPrefix.None)>] Pair of ParseResults<PairArgument>
    | [<CliPrefix(CliPrefix.None)>] Merge of ParseResults<MergeArgument>
    | [<CliPrefix(CliPrefix.None)>] Subtract of ParseResults<SubtractArgument>

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Accumulate _ -> "the second moment XᵀX/n of the rows of many files, in one pass"
            | Pair _ -> "second and cross moments of a pair's matched rows: what cmcl solve makes heads of"
            | Merge _ -> "the moments of all rows behind several files of moments"
            | Subtract _ -> "the moments of a pair or of several without those of a part: as if it had never been seen"

[<RequireQualifiedAccess>]
type SolveArgument =
    | [<MainCommand; ExactlyOnce>] Moments of FILE: string list
    | [<AltCommandLine("-o")>] Out of FILE: string
    | Dimension of D: int
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Moments _ -> "files of cmcl moments pair, merge or subtract, each a step"
            | Out _ -> "NAME.safetensors (default: heads.safetensors), or a folder for one .npy file for each modality"
            | Dimension _ -> "rows of every head, the joint dimension (default: the widest features')"
            | Force -> "replace what is there"
            | Quiet -> "print nothing but errors"
