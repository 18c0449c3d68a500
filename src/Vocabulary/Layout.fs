namespace Cmcl

open System

/// How a part of a table stands out where a terminal can show it.
[<RequireQualifiedAccess>]
type Emphasis =
    | Plain
    | Strong
    | Faint
    | Good
    | Bad

/// A cell of a table in a terminal: its lines, one below the other.
type LayoutCell = (Emphasis * string) list

/// A column of a table in a terminal.
type LayoutColumn =
    {
        Title: string
        /// Numbers stand right and are never broken; texts stand left and are broken at words where room is short.
        IsText: bool
        /// 0 for a column that always stays; of the others the largest goes first where there is no room for all.
        Rank: int
    }

/// A table for a terminal.
type LayoutTable =
    {
        Columns: LayoutColumn list
        /// As many cells in each as there are columns; None is an empty line.
        Rows: LayoutCell list option list
        /// A sentence that says where columns are for which there was no room.
        Elsewhere: string
    }

/// Text and tables within the width of a terminal: words and numbers stay whole.
[<RequireQualifiedAccess>]
module Layout =
    /// What may stand on different lines of so many characters: words, and of a longer label its settings (`dns[exact=on;` and `place=update]`),
    /// each with what stands between it and the next.
    let private parts (width: int) (text: string) : (string * string) list =
        [ for word in text.Split(' ', StringSplitOptions.RemoveEmptyEntries) do
              // Where a label is broken, nothing stands between its parts.
              let pieces =
                  if word.Length > width && word.Contains '[' && word.Contains '=' then
                      word.Replace("[", "[\n").Replace(";", ";\n").Split('\n', StringSplitOptions.RemoveEmptyEntries)
                  else
                      [| word |]

              for i, piece in Seq.indexed pieces do
                  piece, (if i = pieces.Length - 1 then " " else "") ]

    /// A text that no line is broken in, such as a path.
    let whole (text: string) : string = text.Replace(' ', '\u00A0')

    let private spaced (line: string) = line.Replace('\u00A0', ' ')

    /// Text broken between words into lines of at most so many characters; a longer word has a line of its own.
    let wrap (width: int) (text: string) : string list =
        let add (lines, current: string, gap: string) (part: string, next: string) =
            if current = "" then lines, part, next
            elif current.Length + gap.Length + part.Length <= width then lines, current + gap + part, next
            else current :: lines, part, next

        let lines, last, _ = List.fold add ([], "", "") (parts width text)
        List.rev (last :: lines) |> List.filter ((<>) "") |> List.map spaced

    /// Text with a title before its first line, the others below it.
    let titled (width: int) (indent: int) (title: string) (text: string) : string list =
        let blank = String(' ', indent)
        let lines = wrap (max 20 (width - indent)) text
        let beside = title.Length + 2 <= indent

        [ if not beside then
              title
          for i, line in List.indexed lines do
              if i = 0 && beside then title.PadRight indent + line else blank + line ]

    let private longest (lines: string list) = lines |> List.map String.length |> List.fold max 0

    let private gap = "  "

    /// The lines of a table that is at most so wide, each line of a cell given to `paint`; columns that there is no room for are left out,
    /// which is said below it. Only a text without a break in it that is wider than all that there is makes a wider line.
    let table (paint: Emphasis -> string -> string) (width: int) (t: LayoutTable) : string list =
        let columns, rows = t.Columns, t.Rows
        let cells place = rows |> List.choose (Option.map (List.item place))
        let indexed = List.indexed columns
        let breakable (text: string) = parts 0 text |> List.map (fst >> spaced) |> longest

        /// The least and the full width of a column.
        let bounds (place, c: LayoutColumn) =
            let texts = cells place |> List.collect (List.map snd)
            let full = max (longest texts) c.Title.Length
            let least = if c.IsText then texts |> List.map breakable |> List.fold max 0 else longest texts
            max least (breakable c.Title), full

        let total widths = List.sum widths + gap.Length * widths.Length

        let rec fitting (kept: (int * LayoutColumn) list) =
            if total (kept |> List.map (bounds >> fst)) <= width || kept |> List.forall (fun (_, c) -> c.Rank = 0) then
                kept
            else
                let goes = kept |> List.maxBy (fun (place, c) -> c.Rank, place)
                fitting (List.except [ goes ] kept)

        let kept = fitting indexed
        let limits = kept |> List.map bounds

        // What is left of the width goes to the columns that need least of it to stand unbroken.
        let widths =
            let spare = max 0 (width - total (List.map fst limits))
            let needs = limits |> List.map (fun (least, full) -> full - least) |> List.indexed |> List.sortBy snd

            let give (left, given) (place, need) = left - min left need, Map.add place (min left need) given
            let _, given = List.fold give (spare, Map.empty) needs

            limits |> List.mapi (fun i (least, _) -> least + given[i])

        let print (cellsOf: (int * LayoutColumn) -> LayoutCell) (fromBelow: bool) : string list =
            let columns =
                List.zip kept widths
                |> List.map (fun ((place, c), w) ->
                    w, c, cellsOf (place, c) |> List.collect (fun (e, text) -> wrap w text |> List.map (fun line -> e, line)))

            let height = columns |> List.map (fun (_, _, lines) -> lines.Length) |> List.fold max 1

            [ for i in 0 .. height - 1 do
                  let line =
                      columns
                      |> List.map (fun (w, c, lines) ->
                          let at = if fromBelow then i - (height - lines.Length) else i
                          let emphasis, text = lines |> List.tryItem at |> Option.defaultValue (Emphasis.Plain, "")
                          let room = String(' ', max 0 (w - text.Length))
                          // What is painted is the text, not the room beside it.
                          if text = "" then room
                          elif c.IsText then paint emphasis text + room
                          else room + paint emphasis text)

                  (gap + String.Join(gap, line)).TrimEnd() ]

        let lines =
            [ yield! print (fun (_, c) -> [ Emphasis.Plain, c.Title ]) true
              gap + String('─', total widths - gap.Length)
              for row in rows do
                  match row with
                  | None -> ""
                  | Some cells -> yield! print (fun (place, _) -> cells[place]) false ]

        match List.except kept indexed with
        | [] -> lines
        | gone ->
            let names = String.Join(", ", gone |> List.map (fun (_, c) -> c.Title.Replace('\n', ' ')))
            lines @ (wrap (width - 2) $"Left out at {width} columns: {names}. {t.Elsewhere}" |> List.map (fun line -> gap + line))

    /// A cell of one line.
    let plain (text: string) : LayoutCell = [ Emphasis.Plain, text ]

    /// A column of text.
    let words (rank: int) (title: string) : LayoutColumn = { Title = title; IsText = true; Rank = rank }

    /// A column of numbers.
    let figures (rank: int) (title: string) : LayoutColumn = { Title = title; IsText = false; Rank = rank }
