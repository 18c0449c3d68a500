/// What `cmcl` takes on its command line, and how it becomes requests.
module Cmcl.Cli.Arguments

open Argu
open Cmcl.Cli.HeadArguments
open Cmcl.Cli.GalleryArguments
open Cmcl.Cli.MomentsArguments
open Cmcl.Cli.EncodersArguments
open Cmcl.Cli.ExtractArguments
open Cmcl.Cli.StreamArguments
open Cmcl.Cli.SweepArguments
open Cmcl.Cli.StoreArguments
open Cmcl.Cli.NotebookArguments

/// NAME=VALUE; without a sign, a name without a value.
let assignment (text: string) : string * string =
    match text.Split('=', 2) with
    | [| name; value |] -> name.Trim(), value.Trim()
    | _ -> text, ""

/// `cmcl run`. Options of training and of methods are not here (`OptionArguments`).
type RunArgument =
    | Stream of NAME_OR_FOLDER: string
    | Preset of NAME: string
    | [<AltCommandLine("-m")>] Methods of LIST: string
    | Seeds of LIST: string
    | [<AltCommandLine("-o")>] Out of FOLDER: string
    | Split of NAME: string
    | Device of NAME: string
    | Threads of N: int
    | Jobs of N: int
    | Save_Weights
    | Force
    | [<AltCommandLine("-q")>] Quiet
    | Set of NAME_VALUE: string
    | Monitor of N: int
    | Checkpoint_Every of WHEN: string
    | Keep of N: int
    | Log_Format of KIND: string
    | No_Memory_Check

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Stream _ -> "the data: emoji (default), emoji-dense, real, real-bound, synthetic, or a stream folder or file"
            | Preset _ ->
                $"""settings and methods to use instead of the stream's own preset: {System.String.Join(", ", Cmcl.Presets.names)}"""
            | Methods _ ->
                "methods, separated by commas, each optionally with options of its own in brackets: vanilla,\"dns[lr=1e-3;exact=on]\" (default: those of the stream's preset; cmcl methods lists all)"
            | Seeds _ -> "seeds, such as 0,1,2 or 0-9 (default: 0,1,2)"
            | Out _ -> "folder for the results (default: results/STREAM)"
            | Split _ -> "the split that results are measured on: test (default) or validation"
            | Device _ -> "cpu (default), cuda or cuda:N"
            | Jobs _ ->
                "runs side by side (default: as many as there are cores for their threads; 1 on a GPU). Results do not depend on it, times do"
            | Threads _ -> "threads of libtorch (default: 1 for features of up to 512 columns, else one per core)"
            | Save_Weights -> "save every head after every step: weights/METHOD/seed-S/step-TT/MODALITY.npy"
            | Force -> "begin anew: replace results that are already in the folder"
            | Quiet -> "print nothing but errors"
            | Set _ -> "an option of training or of a method, as NAME=VALUE: the same as --NAME VALUE; can be repeated"
            | Monitor _ ->
                "measure every N updates how far the scores of each old step have moved, without its data, into monitor.csv (default: after steps only)"
            | Checkpoint_Every _ ->
                "when to write a checkpoint that cmcl resume can continue from: auto (default: every half minute), step, every N updates (200), epochs (1ep) or seconds (30s) and after each step, or off"
            | Keep _ -> "checkpoints to keep of each run (default: 2)"
            | Log_Format _ -> "text (default), or json: one line of JSON per event on standard output, and nothing else"
            | No_Memory_Check -> "start even if the run seems to need more memory than is free"

/// `cmcl resume`.
[<RequireQualifiedAccess>]
type ResumeArgument =
    | [<MainCommand; ExactlyOnce>] Folder of RESULTS: string
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Folder _ -> "the results folder of a run that was interrupted"
            | Quiet -> "print nothing but errors"

/// `cmcl verify`. What it shares with `cmcl run` is said there once.
[<RequireQualifiedAccess>]
type VerifyArgument =
    | Stream of NAME_OR_FOLDER: string
    | Seed of N: string
    | [<AltCommandLine("-o")>] Out of FOLDER: string
    | Device of NAME: string
    | Threads of N: int
    | Force
    | [<AltCommandLine("-q")>] Quiet
    | Set of NAME_VALUE: string

    /// The same argument of `cmcl run`.
    member private a.OfRun: RunArgument option =
        match a with
        | Seed _ -> None
        | Stream v -> Some(RunArgument.Stream v)
        | Out v -> Some(RunArgument.Out v)
        | Device v -> Some(RunArgument.Device v)
        | Threads n -> Some(RunArgument.Threads n)
        | Force -> Some RunArgument.Force
        | Quiet -> Some RunArgument.Quiet
        | Set v -> Some(RunArgument.Set v)

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Seed _ -> "the seed, a whole number (default: 0)"
            | Out _ -> "folder for verify.csv, curves.csv and verify.html (default: results/verify-STREAM)"
            | _ -> a.OfRun |> Option.map (fun shared -> (shared :> IArgParserTemplate).Usage) |> Option.defaultValue ""

/// `cmcl compare`. What it shares with `cmcl run` is said there once.
[<RequireQualifiedAccess>]
type CompareArgument =
    | Stream of LIST: string
    | [<AltCommandLine("-m")>] Methods of LIST: string
    | Seeds of LIST: string
    | Orders of N: int
    | Splits of N: int
    | [<AltCommandLine("-o")>] Out of FOLDER: string
    | Jobs of N: int
    | Threads of N: int
    | Device of NAME: string
    | Split of NAME: string
    | Set of NAME_VALUE: string
    | Metrics of LIST: string
    | Against of METHOD: string
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            let shared (argument: RunArgument) = (argument :> IArgParserTemplate).Usage

            match a with
            | Stream _ ->
                "the data, one or several separated by commas: emoji (default), emoji-dense, real, real-bound, synthetic, or stream folders or files"
            | Methods _ ->
                "methods, separated by commas, each optionally with options of its own in brackets (default: every method that trains, and zero-shot)"
            | Seeds _ -> "seeds, such as 0,1,2 or 0-9 (default: 0-9)"
            | Orders _ -> "number of orders of its steps to run each stream in: its own, and others drawn at random (default: 1)"
            | Splits _ ->
                "number of splits of its items into training, validation and test rows to run each stream on: its own, and others drawn at random (default: 1)"
            | Out _ ->
                "folder for the results (default: results/compare). An interrupted comparison resumes: finished cells are not run again"
            | Jobs _ ->
                "worker processes side by side (default: as many as there are cores for their threads; 1 on a GPU). Results do not depend on it, times do"
            | Threads n -> shared (RunArgument.Threads n)
            | Device v -> shared (RunArgument.Device v)
            | Split v -> shared (RunArgument.Split v)
            | Set v -> shared (RunArgument.Set v)
            | Metrics _ -> "metrics for tables and tests, separated by commas (default: the main ones)"
            | Against _ ->
                "the method, by its label, to test every other against (default: dns, or else the first that trains step by step)"
            | Force -> "run every cell again, finished ones included"
            | Quiet -> shared RunArgument.Quiet

/// `cmcl tune`. There is no `--split`: settings are chosen on validation rows.
[<RequireQualifiedAccess>]
type TuneArgument =
    | [<Mandatory; AltCommandLine("-m", "--methods")>] Method of LIST: string
    | Stream of NAME_OR_FOLDER: string
    | Seeds of LIST: string
    | Trials of N: int
    | Grid of AXES: string
    | Within of POINTS: string
    | [<AltCommandLine("-o")>] Out of FOLDER: string
    | Jobs of N: int
    | Threads of N: int
    | Device of NAME: string
    | Set of NAME_VALUE: string
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            let shared (argument: CompareArgument) = (argument :> IArgParserTemplate).Usage

            match a with
            | Method _ -> "the method to find settings for, or several separated by commas"
            | Stream _ -> "the data: emoji (default), emoji-dense, real, real-bound, synthetic, or a stream folder or file"
            | Seeds _ -> "seeds, such as 0,1,2 or 0-9, over which each trial is averaged (default: 0)"
            | Trials _ ->
                "largest number of trials per method; from a larger grid that many are drawn, always the same (default: 12)"
            | Grid _ ->
                "values to try instead of the declared ones: \"lr=1e-4,5e-4;alpha=0.1,1\"; options that move together: \"threshold=partner-threshold=trace:1e-3,trace:1e-2\""
            | Within _ ->
                "choose, among the trials whose validation recall@10 is within this many points of the best, the one that moves old scores least (default: 0.5)"
            | Out _ -> "folder for trials.csv and preset.json (default: results/tune/STREAM). An interrupted search resumes"
            | Jobs n -> shared (CompareArgument.Jobs n)
            | Threads n -> shared (CompareArgument.Threads n)
            | Device v -> shared (CompareArgument.Device v)
            | Set v -> shared (CompareArgument.Set v)
            | Force -> shared CompareArgument.Force
            | Quiet -> shared CompareArgument.Quiet

/// `cmcl bench`. Lists are texts here; the command reads them.
[<RequireQualifiedAccess>]
type BenchArgument =
    | Quick
    | Parity
    | Forms of LIST: string
    | Sizes of LIST: string
    | Batches of LIST: string
    | Ranks of LIST: string
    | Threads of LIST: string
    | Dtype of LIST: string
    | Device of NAME: string
    | Rounds of N: int
    | Steps of LIST: string
    | [<AltCommandLine("-o")>] Out of FOLDER: string
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Quick ->
                "under a minute: none, published, block, block-own and soft at d = 1024 and a batch of 64, with the ratios; nothing is written unless --out is given"
            | Parity ->
                "time nothing: train every form on the device and by pure functions on the CPU, and report how far the weights differ; parity.csv is written if --out is given"
            | Forms _ -> $"""forms, separated by commas (default: all): {System.String.Join(", ", Cmcl.Form.names)}"""
            | Sizes _ -> "sizes d of the d × d heads (default: 256,768,1024,2048; with --parity 256)"
            | Batches _ -> "pairs in a batch (default: 64,256,1024; with --parity 64)"
            | Ranks _ ->
                "protected directions as shares of d (default: 1/4,1/16,1/2; with --parity 1/4); forms that have no rank are timed at the first"
            | Threads _ ->
                "threads of libtorch, one number after another (default: 1, and one per core; with --parity one per core)"
            | Dtype _ -> "float32, float64 or both (default: float32,float64; with --quick float32)"
            | Device _ -> "cpu (default), cuda or cuda:N"
            | Rounds _ ->
                "rounds in which forms take turns (default: 9, with --quick 15; fewer where they take long, but at least 5)"
            | Steps _ -> "rows of the whole steps, or off (default: 1000,2000,5000,10000; with --quick off)"
            | Out _ -> "folder for bench.csv, steps.csv and bench.html (default: results/bench)"
            | Force -> "replace a benchmark that is already in the folder"
            | Quiet -> "print nothing but errors"

/// `cmcl import`. What the formats are, `Cmcl.Importer` knows.
[<RequireQualifiedAccess>]
type ImportArgument =
    | [<MainCommand>] From of FORMAT_AND_FOLDER: string list
    | [<AltCommandLine("-o")>] Out of FOLDER: string
    | Backbone of NAME: string
    | Steps of LIST: string
    | Validation of SHARE: string
    | Test of SHARE: string
    | Seed of N: string
    | Normalise
    | Allow_Zero_Rows
    | Order of LIST: string
    | Drop_Unmatched
    | Name of NAME: string
    | Memory of SIZE: string
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | From _ -> "a format and a folder; without them, lists the formats"
            | Out _ -> "folder for the stream"
            | Backbone _ -> $"""cmcl-h5: {System.String.Join(", ", Cmcl.Published.backbones)}"""
            | Steps _ -> "cmcl-h5: the paper's steps by number, such as 1,2,4 (default: all eleven)"
            | Validation _ -> "share of the training rows to hold out for validation if no file says which (default: 0.1)"
            | Test _ -> "share of all rows to hold out for the test if no file says which (default: 0.2)"
            | Seed _ -> "seed for drawing these rows (default: 0)"
            | Normalise -> "scale every row to length 1 (default: as stored)"
            | Allow_Zero_Rows -> "accept rows of zeros, which are an error otherwise"
            | Order _ ->
                "all but cmcl-h5: modalities, those that are rather anchors first (default: vision,text,audio,thermal,depth,imu,video,tactile,point)"
            | Drop_Unmatched -> "all but cmcl-h5: leave out rows whose id the other modality has not, and list them"
            | Name _ -> "all but cmcl-h5: name of the stream (default: that of the folder given with --out)"
            | Memory _ ->
                "memory that files may take to be read, such as 8G or 800M (default: 4G, or three quarters of the machine's if that is less)"
            | Force -> "replace a stream that is in the folder already"
            | Quiet -> "print nothing but errors"

type ReportArgument =
    | [<MainCommand; ExactlyOnce>] Results of FOLDER: string

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Results _ -> "a folder that cmcl run wrote"

type InfoArgument =
    | [<MainCommand; ExactlyOnce>] Data of NAME_OR_FOLDER: string

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Data _ -> "emoji, emoji-dense, real, real-bound, synthetic, or a stream folder or file"

type MethodsArgument =
    | [<MainCommand; Unique>] Method of NAME: string

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Method _ -> "one method, with all that it takes"

[<RequireQualifiedAccess>]
type ScriptKind =
    | Ablation
    | Method

[<RequireQualifiedAccess>]
type NewArgument =
    | [<MainCommand; ExactlyOnce>] File of FILE: string
    | [<Unique>] Kind of ScriptKind
    | [<Unique>] Force

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | File _ -> "the script to write, such as mine.fsx"
            | Kind _ -> "what it begins as: one option over some values, or a method of your own (default: ablation)"
            | Force -> "replace a file that is there"

type Command =
    | [<CliPrefix(CliPrefix.None)>] Run of ParseResults<RunArgument>
    | [<CliPrefix(CliPrefix.None)>] Resume of ParseResults<ResumeArgument>
    | [<CliPrefix(CliPrefix.None)>] Compare of ParseResults<CompareArgument>
    | [<CliPrefix(CliPrefix.None)>] Tune of ParseResults<TuneArgument>
    | [<CliPrefix(CliPrefix.None)>] Sweep of ParseResults<SweepArgument>
    | [<CliPrefix(CliPrefix.None)>] Cell of ParseResults<CellArgument>
    | [<CliPrefix(CliPrefix.None)>] Store of ParseResults<StoreArgument>
    | [<CliPrefix(CliPrefix.None)>] Verify of ParseResults<VerifyArgument>
    | [<CliPrefix(CliPrefix.None)>] Bench of ParseResults<BenchArgument>
    | [<CliPrefix(CliPrefix.None)>] Import of ParseResults<ImportArgument>
    | [<CliPrefix(CliPrefix.None); CustomCommandLine("stream")>] MakeStream of ParseResults<StreamArgument>
    | [<CliPrefix(CliPrefix.None)>] Report of ParseResults<ReportArgument>
    | [<CliPrefix(CliPrefix.None)>] Info of ParseResults<InfoArgument>
    | [<CliPrefix(CliPrefix.None)>] Methods of ParseResults<MethodsArgument>
    | [<CliPrefix(CliPrefix.None)>] Export of ParseResults<ExportArgument>
    | [<CliPrefix(CliPrefix.None)>] Apply of ParseResults<ApplyArgument>
    | [<CliPrefix(CliPrefix.None)>] Retrieve of ParseResults<RetrieveArgument>
    | [<CliPrefix(CliPrefix.None)>] Gallery of ParseResults<GalleryArgument>
    | [<CliPrefix(CliPrefix.None)>] Extract of ParseResults<ExtractArgument>
    | [<CliPrefix(CliPrefix.None)>] Encoders of ParseResults<EncodersArgument>
    | [<CliPrefix(CliPrefix.None)>] Moments of ParseResults<MomentsArgument>
    | [<CliPrefix(CliPrefix.None)>] Solve of ParseResults<SolveArgument>
    | [<CliPrefix(CliPrefix.None)>] Notebook of ParseResults<NotebookArgument>
    | [<CliPrefix(CliPrefix.None)>] New of ParseResults<NewArgument>
    | [<CliPrefix(CliPrefix.None); SubCommand>] Metrics
    | [<CliPrefix(CliPrefix.None); SubCommand; Hidden>] Worker
    | Version

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Run _ -> "train methods on a stream, measure them, write results and a report"
            | Resume _ -> "resume an interrupted run from its checkpoints"
            | Compare _ -> "compare methods, seeds, orders and streams in many processes: tables, tests, a page"
            | Tune _ -> "tune a method's hyperparameters on the validation split"
            | Sweep _ -> "run a sweep file, here or on a cluster, and collect the results"
            | Cell _ -> "run one cell of a sweep's folder"
            | Store _ -> "what a results folder has of cells, and taking over those of other code"
            | Verify _ ->
                "check the theory numerically on a stream, in float64 unless --dtype says otherwise: a table of conditions, and figures"
            | Bench _ -> "time training with and without protection against what the machine can do"
            | Import _ -> "make a stream folder from files of features; without arguments, list the formats"
            | MakeStream _ -> "make a stream folder from banks that cmcl extract wrote, matched by their ids"
            | Report _ -> "rebuild the report of a results folder"
            | Info _ -> "describe and check a stream"
            | Methods _ -> "list the methods and their options"
            | Export _ -> "export trained heads from a results folder, as one .safetensors file or as .npy files"
            | Apply _ -> "project new features through a trained head"
            | Gallery _ -> "a page that shows what the heads of a run retrieve for a few rows: pictures, texts, recordings"
            | Extract _ -> "run an encoder over images, texts or recordings and save the features"
            | Encoders _ -> "list encoders with ready descriptions and fetch their weights"
            | Moments _ -> "accumulate, merge and subtract moments of features in many files"
            | Solve _ -> "heads from moments, in one solve"
            | Retrieve _ -> "find for each row of one array the best rows of another, with their scores"
            | Notebook _ -> "run the F# cells of a notebook and store their outputs, without Jupyter"
            | New _ -> "write a script to begin with: an ablation, or a method of your own"
            | Metrics -> "list the metrics with their formulas and sources"
            | Worker -> "run cells for another cmcl, a line of JSON each on standard input"
            | Version -> "print the version"
