/// What the commands that use trained heads take: `cmcl export`, `cmcl apply`, `cmcl retrieve`.
module Cmcl.Cli.HeadArguments

open Argu

[<RequireQualifiedAccess>]
type ExportArgument =
    | [<MainCommand; ExactlyOnce>] Results of FOLDER: string
    | [<Mandatory; AltCommandLine("-m")>] Method of LABEL: string
    | Seed of N: int
    | Step of T: int
    | [<AltCommandLine("-o")>] Out of FILE_OR_FOLDER: string
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Results _ -> "a folder that cmcl run --save-weights wrote"
            | Method _ -> "the method, by its label in the results"
            | Seed _ -> "the seed (default: 0)"
            | Step _ -> "heads as they were after this step (default: the last)"
            | Out _ -> "NAME.safetensors (default: heads.safetensors), or a folder for one .npy file for each modality"
            | Force -> "replace what is there"
            | Quiet -> "print nothing but errors"

[<RequireQualifiedAccess>]
type ApplyArgument =
    | [<MainCommand; ExactlyOnce>] Files of HEADS: string * FEATURES: string
    | [<Mandatory>] Modality of NAME: string
    | [<Mandatory; AltCommandLine("-o")>] Out of FILE: string
    | Normalise
    | Bias
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Files _ ->
                "heads, a .safetensors file or a folder of .npy files, and the features, a .npy file with one row an item"
            | Modality _ -> "whose head"
            | Out _ -> "the .npy file for the outputs"
            | Normalise -> "outputs of unit length, for heads trained on cosines (--scores cosine)"
            | Bias -> "the heads have a bias in their last column, where nothing beside them says so (a folder of .npy files)"
            | Force -> "replace a file that is there"
            | Quiet -> "print nothing but errors"

[<RequireQualifiedAccess>]
type RetrieveArgument =
    | [<MainCommand; ExactlyOnce>] Files of A: string * B: string
    | [<CustomCommandLine("-k")>] K of N: int
    | Cosine
    | Ids
    | [<AltCommandLine("-o")>] Out of FILE: string
    | Force

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Files _ -> "two .npy files, one row an item: for each row of A the best of B"
            | K _ -> "how many (default: 10)"
            | Cosine -> "score by cosines instead of inner products"
            | Ids -> "name rows by the ids beside the files (A.ids.txt beside A.npy, one a line) instead of numbers from 0"
            | Out _ -> "the .csv file (default: standard output)"
            | Force -> "replace a file that is there"
