namespace Cmcl

open System
open System.IO
open System.Reflection
open Plotly.NET

/// Whoever shows values to a person, found in the process by name: F# Interactive, `cmcl notebook run`, the F# kernel of
/// Polyglot Notebooks and Jupyter (.NET Interactive). Nothing here refers to any of them.
[<RequireQualifiedAccess>]
module Notebook =
    /// Where `cmcl notebook run` leaves how to display a value, an `Action<obj>`, in the data of its process.
    [<Literal>]
    let DisplayKey = "Cmcl.Notebook.display"

    /// Where it leaves its `fsi` object.
    [<Literal>]
    let InteractiveKey = "Cmcl.Notebook.fsi"

    let private typeIn (assembly: string) (name: string) : Type option =
        AppDomain.CurrentDomain.GetAssemblies()
        |> Array.tryFind (fun a -> a.GetName().Name = assembly)
        |> Option.bind (fun a -> a.GetType name |> Option.ofObj)

    /// A static method by its name and the names of its parameters' types.
    let private method' (name: string) (parameters: Type list) (owner: Type) : MethodInfo option =
        owner.GetMethod(name, BindingFlags.Public ||| BindingFlags.Static, Array.ofList parameters) |> Option.ofObj

    let private call (m: MethodInfo) (arguments: objnull list) : objnull = m.Invoke(null, Array.ofList arguments)

    /// The kernel's functions, where this process is a kernel.
    let private kernel () : Type option = typeIn "Microsoft.DotNet.Interactive" "Microsoft.DotNet.Interactive.Kernel"

    let private formatter () : Type option =
        typeIn "Microsoft.DotNet.Interactive.Formatting" "Microsoft.DotNet.Interactive.Formatting.Formatter"

    /// The object `fsi` of F# Interactive or of `cmcl notebook run`.
    let private interactive () : obj option =
        match AppDomain.CurrentDomain.GetData InteractiveKey with
        | null ->
            typeIn "FSharp.Compiler.Interactive.Settings" "FSharp.Compiler.Interactive.Settings"
            |> Option.bind (fun t -> t.GetProperty "fsi" |> Option.ofObj)
            |> Option.bind (fun p -> p.GetValue null |> Option.ofObj)
        | fsi -> Some fsi

    let private register (kind: Type) (mime: string) (write: obj -> string) (owner: Type) : unit =
        let write = Action<obj, TextWriter>(fun value writer -> writer.Write(write value))

        owner
        |> method' "Register" [ typeof<Type>; typeof<Action<obj, TextWriter>>; typeof<string> ]
        |> Option.iter (fun m -> call m [ kind; write; mime ] |> ignore)

        owner
        |> method' "SetPreferredMimeTypesFor" [ typeof<Type>; typeof<string[]> ]
        |> Option.iter (fun m -> call m [ kind; [| mime |] ] |> ignore)

    /// From here on values of the type are printed so, by whoever shows values in this process; if nobody does, nothing happens.
    let printer (text: 'T -> string) : unit =
        for owner in Option.toList (formatter ()) do
            register typeof<'T> "text/plain" (fun value -> text (unbox<'T> value)) owner

        for fsi in Option.toList (interactive ()) do
            match fsi.GetType().GetMethod "AddPrinter" with
            | null -> ()
            | add -> add.MakeGenericMethod(typeof<'T>).Invoke(fsi, [| box text |]) |> ignore

    let private inKernel (show: MethodInfo) (html: string) (owner: Type) : unit =
        owner
        |> method' "HTML" [ typeof<string> ]
        |> Option.iter (fun m -> call show [ call m [ html ]; Array.empty<string> ] |> ignore)

    let private showOf (owner: Type) : MethodInfo option = method' "display" [ typeof<obj>; typeof<string[]> ] owner

    /// Shows a value below the cell that is running, beside its result. In F# Interactive, which shows text only, it is printed.
    let display (value: objnull) : unit =
        match AppDomain.CurrentDomain.GetData DisplayKey, kernel () |> Option.bind showOf with
        | (:? Action<objnull> as show), _ -> show.Invoke value
        | _, Some show -> call show [ value; Array.empty<string> ] |> ignore
        | _, None ->
            match value with
            | :? string as text -> printfn "%s" text
            | :? GenericChart as chart -> printfn "%s" (Show.chart chart)
            | value -> printfn "%A" value

    /// In a kernel: charts, and values of this library that have HTML of their own, appear as such. plotly.js comes below the
    /// cell that calls this, once for the notebook.
    let private charts () : unit =
        for owner in Option.toList (formatter ()) do
            register typeof<GenericChart> "text/html" (fun c -> Inline.chart $"chart-{Guid.NewGuid():N}" (unbox c)) owner

            for kind in typeof<TextTable>.Assembly.GetExportedTypes() do
                if not kind.ContainsGenericParameters && not (Array.isEmpty (kind.GetMember "ToHtml")) then
                    register kind "text/html" (fun value -> Inline.own value |> Option.defaultValue "") owner

        for owner in Option.toList (kernel ()) do
            for show in Option.toList (showOf owner) do
                inKernel show (Inline.plotly ()) owner

    /// Values of this library, tensors and charts appear from here on as they are meant to, in F# Interactive, in `cmcl notebook run` and in
    /// a kernel. `scripts/load.fsx` calls it; a notebook that begins with a package reference does so itself.
    let attach () : unit =
        printer Show.tensor
        printer Show.heads
        printer Show.moment
        printer Show.spectrum
        printer Show.stream
        printer Show.chart
        printer Show.bank
        printer Show.step
        printer (fun (m: Method) -> $"method {m.Name}: {m.Summary}")
        printer (fun (frame: Deedle.Internal.IFsiFormattable) -> frame.Format())
        charts ()
