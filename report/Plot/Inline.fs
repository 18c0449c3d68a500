namespace Cmcl

open System
open System.IO
open System.IO.Compression
open System.Reflection
open Plotly.NET

/// Values as pieces of HTML that stand in somebody else's page, such as a notebook's. Nothing in them is fetched from anywhere.
[<RequireQualifiedAccess>]
module Inline =
    let private packed (text: string) : string =
        use bytes = new MemoryStream()

        do
            use gzip = new GZipStream(bytes, CompressionLevel.SmallestSize, true)
            gzip.Write(Text.Encoding.UTF8.GetBytes text)

        Convert.ToBase64String(bytes.ToArray())

    let private script (name: string) (words: (string * string) list) : string =
        let fill (text: string) (word: string, value: string) = text.Replace(word, value)
        let text = Page.resource name
        $"<script>\n{List.fold fill text words}</script>\n"

    /// plotly.js, which every chart of the page needs once: 1.3 MB, since it is packed and unpacks itself.
    let plotly () : string = script "plotly.js" [ "PACKED", packed (Page.plotly ()) ]

    /// A chart by the id of its place. It is drawn as soon as the page has `plotly`, before it or after it.
    let chart (id: string) (chart: GenericChart) : string =
        let figure = chart |> GenericChart.toJson |> Page.inert
        let note = "The chart is drawn here as soon as the notebook's plotly.js is there."
        $"<div id=\"{id}\">{note}</div>\n" + script "chart.js" [ "PLACE", id; "FIGURE", figure ]

    /// The HTML that a value has of itself: a public method or property `ToHtml` that gives a string.
    let own (value: objnull) : string option =
        match value with
        | null -> None
        | value ->
            let kind = value.GetType()
            let flags = BindingFlags.Public ||| BindingFlags.Instance

            let said: objnull =
                match
                    Option.ofObj (kind.GetMethod("ToHtml", flags, Type.EmptyTypes)),
                    Option.ofObj (kind.GetProperty("ToHtml", flags))
                with
                | Some m, _ -> m.Invoke(value, [||])
                | None, Some p -> p.GetValue value
                | None, None -> null

            match said with
            | :? string as html -> Some html
            | _ -> None
