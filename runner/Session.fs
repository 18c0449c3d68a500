/// The process that runs the cells: one F# Interactive session, cells on standard input, answers on standard output.
module Cmcl.Runner.Session

open System
open System.Collections.Concurrent
open System.IO
open System.Reflection
open System.Text
open System.Threading
open FSharp.Compiler.Diagnostics
open FSharp.Compiler.Interactive.Shell
open Plotly.NET
open Cmcl

/// A session that needs the .NET runtime only: the assemblies of the runtime itself stand in for an SDK's reference assemblies.
let private create () : FsiEvaluationSession =
    let config = FsiEvaluationSession.GetDefaultConfiguration(Settings.fsi, false)

    let args =
        [| "fsi"
           "--noninteractive"
           "--nologo"
           "--quiet"
           "--langversion:latest"
           "--targetprofile:netcore"
           "--usesdkrefs-"
           "--lib:" + AppContext.BaseDirectory
           "--reference:" + typeof<Interactive>.Assembly.Location |]

    FsiEvaluationSession.Create(config, args, new StringReader "", TextWriter.Null, TextWriter.Null, collectible = false)

/// `error FS0039: message`, with the place in the cell.
let private told (cell: int) (d: FSharpDiagnostic) : string =
    let where =
        if Path.GetFileName d.FileName = $"cell{cell}.fsx" then
            $"cell {cell}"
        else
            string (Path.GetFileName d.FileName)

    let kind = if d.Severity = FSharpDiagnosticSeverity.Error then "error" else "warning"
    $"{where} ({d.StartLine},{d.StartColumn + 1}): {kind} {d.ErrorNumberText}: {d.Message}"

/// Values become outputs. The first chart brings plotly.js; ids are counted, so that the same cells give the same bytes.
type private Painter(session: FsiEvaluationSession) =
    let mutable charts = 0

    member _.Forms (cell: int) (value: objnull) (kind: Type) : (string * string) list =
        match value with
        | :? GenericChart as chart ->
            charts <- charts + 1
            let html = Inline.chart $"chart-{cell}-{charts}" chart
            [ "text/html", (if charts = 1 then Inline.plotly () + html else html); "text/plain", "a chart" ]
        | value ->
            let plain = "text/plain", session.FormatValue(Unchecked.nonNull value, kind)

            match Inline.own value with
            | Some html -> [ "text/html", html; plain ]
            | None -> [ plain ]

let private evaluate
    (session: FsiEvaluationSession)
    (painter: Painter)
    (send: Wire.Answer -> unit)
    (request: Wire.Request)
    : unit =
    let n = request.Number
    let result, diagnostics = session.EvalInteractionNonThrowing(request.Source, $"cell{n}.fsx")
    Console.Out.Flush()

    for d in diagnostics do
        if d.Severity = FSharpDiagnosticSeverity.Warning then
            eprintfn "%s" (told n d)

    Console.Error.Flush()

    let fail (name: string) (message: string) (lines: string list) =
        send (Wire.Output(Nbformat.error name message lines))
        send (Wire.Done(Some(String.Join("\n", lines))))

    /// An exception, without what reflection wraps around it.
    let rec thrown (e: exn) =
        match e, Option.ofObj e.InnerException with
        | :? TargetInvocationException, Some inner -> thrown inner
        | _ -> fail (e.GetType().Name) e.Message [ $"{e.GetType().FullName}: {e.Message}" ]

    let errors =
        [ for d in diagnostics do
              if d.Severity = FSharpDiagnosticSeverity.Error then
                  told n d ]

    match result with
    | Choice1Of2(Some v) when v.ReflectionType <> typeof<unit> ->
        // Printers and `ToHtml` are the user's, and may raise.
        try
            send (Wire.Output(Nbformat.shown (Some n) (painter.Forms n v.ReflectionValue v.ReflectionType)))
            send (Wire.Done None)
        with e ->
            thrown e
    | Choice1Of2 _ -> send (Wire.Done None)
    | Choice2Of2 _ when not errors.IsEmpty -> fail "CompilationError" (String.Join("\n", errors)) errors
    | Choice2Of2 e -> thrown e

/// Says that it is ready, and runs cells until standard input ends; then the process ends, whatever it is at.
let serve () : int =
    use input = new StreamReader(Console.OpenStandardInput(), UTF8Encoding false)
    use output = new StreamWriter(Console.OpenStandardOutput(), UTF8Encoding false)
    let gate = Lock()

    let send (answer: Wire.Answer) =
        lock gate (fun () ->
            output.Write(Wire.answer answer + "\n")
            output.Flush())

    let requests = new BlockingCollection<Wire.Request>()

    let listen () =
        let rec next () =
            match input.ReadLine() with
            | null -> Environment.Exit 0
            | line ->
                requests.Add(Wire.readRequest line)
                next ()

        next ()

    Console.SetIn TextReader.Null
    Thread(listen, IsBackground = true).Start()
    let session = create ()
    // After the session, which puts its own in their place.
    Console.SetOut(new Wire.Lines(fun text -> send (Wire.Output(Nbformat.stream "stdout" text))))
    Console.SetError(new Wire.Lines(fun text -> send (Wire.Output(Nbformat.stream "stderr" text))))
    let painter = Painter session
    let mutable cell = 0

    let display (value: objnull) =
        Console.Out.Flush()

        let kind =
            match value with
            | null -> typeof<obj>
            | v -> v.GetType()

        send (Wire.Output(Nbformat.shown None (painter.Forms cell value kind)))

    AppDomain.CurrentDomain.SetData(Notebook.DisplayKey, Action<objnull> display)
    AppDomain.CurrentDomain.SetData(Notebook.InteractiveKey, Host.fsi)

    // The compiler is slow the first time; that is no cell's doing.
    session.EvalInteractionNonThrowing "()" |> ignore
    send (Wire.Done None)

    for request in requests.GetConsumingEnumerable() do
        cell <- request.Number
        evaluate session painter send request

    0
