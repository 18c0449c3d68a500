/// What `cmcl stream` takes.
module Cmcl.Cli.StreamArguments

open Argu

[<RequireQualifiedAccess>]
type StreamArgument =
    | [<MainCommand; ExactlyOnce>] Out of FOLDER: string
    | [<Mandatory>] Bank of NAME_AND_FILE: string
    | [<Mandatory>] Steps of LIST: string
    | Test of SHARE: string
    | Validation of SHARE: string
    | Families of FILE: string
    | Disjoint
    | Seed of N: string
    | Allow_Zero_Rows
    | Name of NAME: string
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Out _ -> "folder for the stream"
            | Bank _ ->
                "a bank as NAME=FILE.npy, once for each; NAME is its modality, or MODALITY:NAME. Rows match by FILE.ids.txt, else by place"
            | Steps _ -> "steps as pairs of banks, the anchor first: A-B,C-B"
            | Test _ -> "share of the items for the test (default: 0.2)"
            | Validation _ -> "share of the items for validation (default: 0.1)"
            | Families _ -> "a table id,family (.csv): items of one family are in one split"
            | Disjoint -> "every step has training items of its own (default: each has all of them)"
            | Seed _ -> "seed for drawing items (default: 0)"
            | Allow_Zero_Rows -> "accept rows of zeros, which are an error otherwise"
            | Name _ -> "name of the stream (default: that of the folder)"
            | Force -> "replace a stream that is in the folder already"
            | Quiet -> "print nothing but errors"
