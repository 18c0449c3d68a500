/// What `cmcl gallery` takes.
module Cmcl.Cli.GalleryArguments

open Argu

[<RequireQualifiedAccess>]
type GalleryArgument =
    | [<MainCommand; ExactlyOnce>] Results of FOLDER: string
    | Step of T: int
    | Seed of N: int
    | [<AltCommandLine("-m")>] Methods of LIST: string
    | Tasks of LIST: string
    | Count of N: int
    | Reverse
    | Items of FOLDER: string
    | Stream of NAME_OR_FOLDER: string
    | [<AltCommandLine("-o")>] Out of FILE: string
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Results _ -> "a folder that cmcl run --save-weights wrote"
            | Step _ -> "what heads retrieve after this step (default: the last)"
            | Seed _ -> "the seed (default: the run's first)"
            | Methods _ -> "methods by their labels in the results, separated by commas (default: all that have heads)"
            | Tasks _ -> "tasks by the numbers of their steps, such as 1,2 or 1-4 (default: all up to that step)"
            | Count _ -> "rows of each task that look for their match (default: 6)"
            | Reverse -> "rows of each step's second bank look in the first"
            | Items _ -> "a folder with BANK.csv, what the rows of a bank are (default: items in the stream's folder)"
            | Stream _ -> "the run's stream, where it is now (default: where it was)"
            | Out _ -> "the .html file (default: gallery.html in the results, replaced if it is there)"
            | Force -> "replace a file of that name that is there"
            | Quiet -> "print nothing but errors"
