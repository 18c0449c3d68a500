namespace Cmcl

open System
open System.Collections.Generic
open System.Globalization
open System.IO
open System.Text.Json
open Giraffe.ViewEngine

/// What there is to show of a row of a bank.
[<RequireQualifiedAccess>]
type ItemForm =
    /// Nothing but its number.
    | Number
    | Text
    /// A picture or a recording as a data URI.
    | Picture of uri: string
    | Recording of uri: string
    /// A file that could not be read, and why.
    | Unreadable of reason: string

/// A row as a page shows it.
type ShownItem =
    {
        /// Its text, or what it is called.
        Name: string
        /// The same, short, to stand under a picture or a recording.
        Caption: string
        Form: ItemForm
    }

/// All that a gallery is made of.
type GalleryContent =
    {
        Info: RunInfo
        Request: GalleryRequest
        Tasks: GalleryTask list
        /// What there is to show of a row of a bank.
        Item: Bank -> int64 -> ShownItem
        /// Sentences on what is left out.
        Remarks: string list
    }

/// The page of a gallery: one HTML file that needs no network, and no plotly.js.
[<RequireQualifiedAccess>]
module GalleryPage =
    /// Pictures and recordings of a page, each once, by the numbers that elements name them by.
    type private Media() =
        let numbers = Dictionary<string, int>()
        let uris = ResizeArray<string>()

        member _.Number(uri: string) : string =
            match numbers.TryGetValue uri with
            | true, n -> string n
            | _ ->
                numbers[uri] <- uris.Count
                uris.Add uri
                string numbers[uri]

        member _.Json: string = JsonSerializer.Serialize uris

    /// A row in its form.
    let private shown (media: Media) (item: ShownItem) : XmlNode list =
        let under =
            span
                [ _class "caption"
                  attr "aria-hidden" "true"
                  if item.Caption <> item.Name then
                      attr "title" item.Name ]
                [ str item.Caption ]

        match item.Form with
        | ItemForm.Number
        | ItemForm.Text ->
            [ span
                  [ _class "words"
                    // Long ones are cut in their places.
                    if item.Name.Length > 100 then
                        attr "title" item.Name ]
                  [ str item.Name ] ]
        | ItemForm.Picture uri -> [ img [ attr "data-media" (media.Number uri); attr "alt" item.Name ]; under ]
        | ItemForm.Recording uri ->
            [ button
                  [ _type "button"
                    _class "play"
                    attr "data-media" (media.Number uri)
                    attr "aria-pressed" "false"
                    attr "aria-label" $"Play {item.Name}" ]
                  []
              under ]
        | ItemForm.Unreadable reason ->
            [ span [ _class "lost"; attr "title" reason ] [ str "cannot be read" ]
              span [ _class "caption" ] [ str item.Caption ] ]

    /// Whether rows of a form are written out in lines, rather than set side by side.
    let private isWords (item: ShownItem) : bool = item.Form = ItemForm.Number || item.Form = ItemForm.Text

    let private ranked (t: GalleryTask) (f: FoundPartners) : string =
        match f.Learned with
        | Some learned -> $"rank {f.Rank} of {t.Candidates}; {learned} when it was learned"
        | None -> $"rank {f.Rank} of {t.Candidates}"

    let private found (c: GalleryContent) media styles (t: GalleryTask) (label: string, f: FoundPartners) : XmlNode =
        let items = [ for p in f.Best -> p, c.Item t.Partner p.Row ]
        let words = items |> List.forall (snd >> isWords)

        div
            [ _class "found"; attr "data-method" label ]
            [ div
                  [ _class "who" ]
                  [ strong [] (TableHtml.chip styles label :: TableHtml.label label)
                    span [ _class "rank" ] [ str (ranked t f) ] ]
              ol
                  [ _class (if words then "best lines" else "best"); attr "aria-label" $"what {label} finds, best first" ]
                  [ for p, item in items ->
                        li
                            [ if p.IsMatch then
                                  _class "match" ]
                            [ yield! shown media item
                              if p.IsMatch then
                                  span [ _class "mark" ] [ str "✓ match" ] ] ] ]

    let private query (c: GalleryContent) (media: Media) styles (t: GalleryTask) (q: GalleryQuery) : XmlNode =
        let own = c.Item t.Query q.Row

        let matches =
            match q.Matches with
            | [ _ ] -> "its match"
            | several -> $"its {several.Length} matches"

        article
            [ attr "aria-label" own.Name ]
            [ div
                  [ _class "query" ]
                  [ div [ _class "item" ] (shown media own)
                    div
                        [ _class "item small" ]
                        [ span [ _class "label" ] [ str matches ]
                          for row in List.truncate 3 q.Matches do
                              yield! shown media (c.Item t.Partner row) ] ]
              div [] [ for f in q.Found -> found c media styles t f ] ]

    let private percent (x: float) : string = (100.0 * x).ToString("0.0", CultureInfo.InvariantCulture)

    /// Of the queries that are shown, how many each method finds; beside it, what was measured on all rows.
    let private summary styles (t: GalleryTask) (methods: string list) : XmlNode =
        let all pick label =
            match Map.tryFind label t.Recall with
            | Some recall -> percent (pick recall)
            | None -> "–"

        let head (name: string) (unit: string) = [ str name; span [ _class "unit" ] [ str unit ] ]
        let count = t.Queries.Length

        Page.table
            1
            [ [ str "method" ]
              head "found first" $"of the {count} here"
              head "among five" $"of the {count} here"
              head "R@1" "all rows, %"
              head "R@5" "all rows, %" ]
            [ for label in methods ->
                  "",
                  [ TableHtml.chip styles label :: TableHtml.label label
                    [ str (string (t.Within 1 label)) ]
                    [ str (string (t.Within Gallery.Shown label)) ]
                    [ str (all fst label) ]
                    [ str (all snd label) ] ] ]

    let private title (t: GalleryTask) : string = $"Step {t.Step.Index}: {t.Step.Name}"

    let private task (c: GalleryContent) (media: Media) styles (t: GalleryTask) : XmlNode =
        let age = if t.Step.Index = c.Request.Step then "the step that was just learned" else "learned before"

        section
            [ _id $"step-{t.Step.Index}" ]
            [ h2 [] [ str (title t) ]
              p
                  [ _class "note" ]
                  [ str $"Rows of {t.Query.Name} look for their matches among {t.Candidates} rows of {t.Partner.Name}; {age}." ]
              summary styles t c.Request.Methods
              for q in t.Queries do
                  query c media styles t q ]

    let private opening (c: GalleryContent) : XmlNode =
        let r = c.Request

        let way =
            if r.Reverse then
                "the second bank of each step looks in the first"
            else
                "the first bank of each step looks in the second"

        header
            [ _class "top" ]
            [ h1 [] [ str $"What is retrieved on “{r.Stream.Name}” after step {r.Step}" ]
              p [ _class "meta" ] [ str $"cmcl {c.Info.Version} · seed {r.Seed} · {r.Split} rows · {c.Info.Command}" ]
              p
                  []
                  [ str
                        $"For some rows of each task, drawn once and the same for every method, the {Gallery.Shown} rows that each method's \
                          heads score highest, best first: {way}. A frame and ✓ mark the match. A few rows are an impression; what was \
                          measured on all rows stands beside them." ]
              ul [ _class "meta" ] [ for sentence in c.Remarks -> li [] [ str sentence ] ]
              ul [ _class "tasks" ] [ for t in c.Tasks -> li [] [ a [ attr "href" $"#step-{t.Step.Index}" ] [ str (title t) ] ] ] ]

    let private methods styles (labels: string list) : XmlNode =
        nav
            [ _class "methods"; attr "aria-label" "Methods shown" ]
            [ div
                  []
                  [ span [] [ str "Methods" ]
                    for label in labels do
                        button
                            [ _type "button"; attr "data-method" label; attr "aria-pressed" "true" ]
                            [ TableHtml.chip styles label; str label ] ] ]

    /// The page as HTML text. The same content gives the same text.
    let build (c: GalleryContent) : string =
        let media = Media()
        let styles = Theme.stylesOf c.Info.Roles c.Request.Methods
        let top = [ opening c; methods styles c.Request.Methods ]
        let tasks = [ for t in c.Tasks -> task c media styles t ]

        Page.document
            $"Cmcl gallery: {c.Request.Stream.Name}"
            (Page.resource "report.css" + Page.resource "gallery.css")
            (top @ [ main [] tasks ])
            [ noscript
                  []
                  [ str
                        "The pictures and recordings of this page are set in place by a script inside it, which is switched off here." ]
              Page.embed "media" media.Json
              Page.script (Page.resource "gallery.js") ]

    /// Writes the page. Fault: `Unwritable`.
    let write (path: string) (c: GalleryContent) : Result<string, Fault list> =
        let page = build c
        Files.writeText path (fun (file: TextWriter) -> file.Write page) |> Result.map (fun () -> path)
