// The items of each source: pictures, texts and recordings that belong together, and the family of each.
#load "packages.fsx"

open System
open System.Collections.Generic
open System.IO
open System.IO.Compression
open System.Text
open System.Text.Json
open System.Text.RegularExpressions
open Packages

/// One thing in several forms: for each bank (`vision:noto`, `text:en`, …) a text, or the path of a picture or a recording.
type Item =
    {
        Id: string
        /// Items of a family are variants of one another: they are held out together in the split by families.
        Family: string
        Forms: Map<string, string>
    }

/// Items that have every form.
let private whole (banks: string list) (items: Item list) : Item list =
    items |> List.filter (fun i -> banks |> List.forall i.Forms.ContainsKey)

/// The first item of each text.
let private distinctBy (bank: string) (items: Item list) : Item list = items |> List.distinctBy (fun i -> i.Forms[bank])

let private sorted (folder: string) (pattern: string) =
    let files = Directory.GetFiles(folder, pattern, SearchOption.AllDirectories)
    Array.Sort(files, StringComparer.Ordinal)
    List.ofArray files

let private rendered (folder: string) =
    let path = Path.Combine(work, folder)
    Directory.CreateDirectory path |> ignore
    path

// ---- telephone prompts (Asterisk): text and recordings of one speaker a language ---------------------------------------

let promptBanks = [ "text:en"; "text:ru"; "speech:en"; "speech:ru" ]

let prompts () : Item list =
    let voices = Map [ "en", "en_US_f_Allison"; "ru", "ru_RU_f_IvrvoiceRU" ]

    /// Lines of `name: what is said`; of some languages UTF-8 was taken for Latin-1 and encoded once more.
    let texts language =
        let share =
            Path.Combine(folderOf $"asterisk-core-sounds-{language}", "usr", "share", "doc", $"asterisk-core-sounds-{language}")

        use file = File.OpenRead(Path.Combine(share, $"core-sounds-{language}.txt.gz"))
        use plain = new GZipStream(file, CompressionMode.Decompress)
        use copy = new MemoryStream()
        plain.CopyTo copy
        let once = Encoding.UTF8.GetString(copy.ToArray())

        let twice =
            try
                UTF8Encoding(false, true)
                    .GetString(
                        Encoding
                            .GetEncoding("latin1", EncoderFallback.ExceptionFallback, DecoderFallback.ExceptionFallback)
                            .GetBytes
                            once
                    )
            with
            | :? EncoderFallbackException
            | :? DecoderFallbackException -> once

        Map
            [ for line in twice.Split '\n' do
                  match line.Split(':', 2) with
                  | [| name; said |] when not (line.StartsWith ';') && said.Trim() <> "" && not (said.Trim().StartsWith '[') ->
                      name.Trim(), said.Trim()
                  | _ -> () ]

    let texts = Map [ for language in [ "en"; "ru" ] -> language, texts language ]

    [ for KeyValue(name, _) in texts["en"] ->
          { Id = name
            // A folder, or the first word of a name: conf-…, vm-…, digits/….
            Family = (name.Split('/', '-'))[0]
            Forms =
              Map
                  [ for KeyValue(language, all) in texts do
                        match Map.tryFind name all with
                        | Some said -> $"text:{language}", said
                        | None -> ()
                    for KeyValue(language, voice) in voices do
                        let sounds =
                            Path.Combine(folderOf $"asterisk-core-sounds-{language}-wav", "usr", "share", "asterisk", "sounds")

                        let path = Path.Combine(sounds, voice, name + ".wav")

                        if File.Exists path then
                            $"speech:{language}", path ] } ]
    |> whole promptBanks
    |> distinctBy "text:en"

// ---- emoji: the rows of data/emoji ---------------------------------------------------------------------------------

let emojiBanks = [ "vision:noto"; "line:hc"; "text:en"; "text:de"; "text:fr"; "speech:en" ]

let emoji () : Item list =
    let json (path: string list) = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(Array.ofList path))).RootElement

    let names =
        Map
            [ for language in [ "en"; "de"; "fr" ] ->
                  language,
                  Map
                      [ for e in (json [ folderOf "emojibase-data"; "package"; language; "data.json" ]).EnumerateArray() ->
                            (string (e.GetProperty("hexcode").GetString())).ToLowerInvariant().Replace("-fe0f", ""),
                            string (e.GetProperty("label").GetString()) ] ]

    let icons (set: string) (package: string) =
        let folder = Path.Combine(folderOf package, "package")
        let chars, all = json [ folder; "chars.json" ], json [ folder; "icons.json" ]
        let drawn = rendered $"emoji-{set}"

        let size (name: string) (e: JsonElement) without =
            match e.TryGetProperty name with
            | true, n -> n.GetInt32()
            | _ -> without

        let width, height = size "width" all 16, size "height" all 16

        fun (codes: string) ->
            match chars.TryGetProperty codes with
            | true, name ->
                let icon = all.GetProperty("icons").GetProperty(string (name.GetString()))
                let path = Path.Combine(drawn, codes + ".svg")
                let w, h = size "width" icon width, size "height" icon height

                File.WriteAllText(
                    path,
                    $"""<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {w} {h}" width="{w}" height="{h}" color="black">{icon.GetProperty("body").GetString()}</svg>"""
                )

                Some path
            | _ -> None

    let noto, line = icons "noto" "@iconify-json/noto", icons "line" "@iconify-json/fluent-emoji-high-contrast"
    let spoken = rendered "emoji-speech"

    let speak (codes: string) (name: string) =
        let path = Path.Combine(spoken, codes + ".wav")

        if not (File.Exists path) then
            ran work "espeak-ng" [ "-v"; "en-us"; "-w"; path + ".part"; name ] |> ignore
            File.Move(path + ".part", path)

        path

    [ for line' in File.ReadLines(Path.Combine(root, "data", "emoji", "items.tsv")) |> Seq.skip 1 do
          let columns = line'.Split '\t'
          let codes = columns[1].ToLowerInvariant()
          let named language = names[language].TryFind(codes.Replace("-fe0f", ""))

          { Id = codes
            Family = columns[5]
            Forms =
              Map
                  [ for bank, form in
                        [ "vision:noto", noto codes
                          "line:hc", line codes
                          "text:en", named "en"
                          "text:de", named "de"
                          "text:fr", named "fr"
                          "speech:en", named "en" |> Option.map (speak codes) ] do
                        match form with
                        | Some form -> bank, form
                        | None -> () ] } ]
    |> whole emojiBanks
    |> distinctBy "text:en"

// ---- clip art (Open Clip Art Library): titles and keywords -----------------------------------------------------------

let clipartBanks = [ "vision"; "text:en" ]

/// The first so many pictures, by their paths, that are small, in the public domain, have a title and two keywords.
let private mostClipart = 1200

let clipart () : Item list =
    let folder = Path.Combine(folderOf "openclipart-svg", "usr", "share", "openclipart", "svg")

    [ for path in sorted folder "*.svg" do
          if FileInfo(path).Length <= 120_000L && (FileInfo path).LinkTarget = null then
              let text = File.ReadAllText path
              let title = Regex.Match(text, "<dc:title>([^<]{3,60})</dc:title>")
              let keywords = [ for m in Regex.Matches(text, "<rdf:li>([^<]+)</rdf:li>") -> m.Groups[1].Value.Trim() ]

              if title.Success && keywords.Length >= 2 && text.Contains "PublicDomain" then
                  let caption = title.Groups[1].Value.Trim() + ", " + String.Join(", ", List.truncate 6 keywords)
                  let within = Path.GetRelativePath(folder, path).Replace('\\', '/')

                  { Id = within.Replace(".svg", "")
                    Family = string (Path.GetDirectoryName within)
                    Forms = Map [ "vision", path; "text:en", Net.WebUtility.HtmlDecode caption ] } ]
    |> List.distinctBy (fun i -> i.Forms["text:en"].ToLowerInvariant())
    |> List.truncate mostClipart

// ---- stamps (Tux Paint): photographs and drawings, captions and human recordings ---------------------------------------

let stampBanks = [ "vision"; "text:en"; "text:ru"; "text:de"; "speech:fr"; "speech:ru" ]

let stamps () : Item list =
    let folder = Path.Combine(folderOf "tuxpaint-stamps-default", "usr", "share", "tuxpaint", "stamps")

    [ for path in sorted folder "*.txt" do
          let stem = Path.ChangeExtension(path, null)
          let lines = File.ReadAllLines path

          let translated =
              [ for line in Seq.skip 1 lines do
                    let m = Regex.Match(line, @"^([a-z]{2,3})\.utf8=(.+)$")

                    if m.Success then
                        $"text:{m.Groups[1].Value}", m.Groups[2].Value.Trim() ]

          let within = Path.GetRelativePath(folder, stem).Replace('\\', '/')

          match [ ".png"; ".svg" ] |> List.map (fun e -> stem + e) |> List.tryFind File.Exists with
          | Some picture when lines.Length > 0 ->
              { Id = within
                Family = String.Join('/', within.Split '/' |> Array.truncate 2)
                Forms =
                  Map(
                      [ "vision", picture; "text:en", lines[0].Trim() ]
                      @ translated
                      @ [ for language in [ "fr"; "ru" ] do
                              let path = $"{stem}_desc_{language}.ogg"

                              if File.Exists path then
                                  $"speech:{language}", path ]
                  ) }
          | _ -> () ]
    |> whole stampBanks
    |> distinctBy "text:en"

/// Sources by name, with their banks.
let sources: (string * string list * (unit -> Item list)) list =
    [ "stamps", stampBanks, stamps
      "prompts", promptBanks, prompts
      "emoji", emojiBanks, emoji
      "clipart", clipartBanks, clipart ]
