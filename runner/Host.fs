namespace Cmcl.Runner

open FSharp.Compiler.Interactive.Shell

/// What scripts know as `fsi`, handed on to the session's own settings; none of its types are the compiler's, which a session
/// would have to load.
type Interactive() =
    let fsi = Settings.fsi
    member _.AddPrinter(printer: 'T -> string) : unit = fsi.AddPrinter printer
    member _.AddPrintTransformer(transformer: 'T -> obj) : unit = fsi.AddPrintTransformer transformer
    member _.CommandLineArgs = [| "cmcl" |]

    member _.FloatingPointFormat
        with get () = fsi.FloatingPointFormat
        and set value = fsi.FloatingPointFormat <- value

    member _.PrintWidth
        with get () = fsi.PrintWidth
        and set value = fsi.PrintWidth <- value

    member _.PrintDepth
        with get () = fsi.PrintDepth
        and set value = fsi.PrintDepth <- value

    member _.PrintLength
        with get () = fsi.PrintLength
        and set value = fsi.PrintLength <- value

    member _.PrintSize
        with get () = fsi.PrintSize
        and set value = fsi.PrintSize <- value

    member _.ShowProperties
        with get () = fsi.ShowProperties
        and set value = fsi.ShowProperties <- value

    member _.ShowIEnumerable
        with get () = fsi.ShowIEnumerable
        and set value = fsi.ShowIEnumerable <- value

/// Open in every cell and in every script that a cell loads.
module Host =
    let fsi = Interactive()

[<assembly: AutoOpen "Cmcl.Runner.Host">]
do ()
