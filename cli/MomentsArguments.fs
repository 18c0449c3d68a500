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
            | Moments _ -> "files that cmcl moments wrote, of rows of one width"
            | Out _ -> "the .safetensors file for the moment of all their rows"
            | Force -> "replace a file that is there"
            | Quiet -> "print nothing but errors"

[<RequireQualifiedAccess>]
type MomentsArgument =
    | [<CliPrefix(CliPrefix.None)>] Accumulate of ParseResults<AccumulateArgument>
    | [<CliPrefix(CliPrefix.None)>] Merge of ParseResults<MergeArgument>

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Accumulate _ -> "the second moment XᵀX/n of the rows of many files, in one pass"
            | Merge _ -> "the moment of all rows behind several moments"
