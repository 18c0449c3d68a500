// Pages of the documentation as their parts, for what runs them (examples.fsx) and what makes the site of them (site.fsx).
open System.IO
open System.Text.RegularExpressions

let root = Path.GetFullPath(Path.Combine(__SOURCE_DIRECTORY__, ".."))
let full (path: string) : string = Path.Combine(root, path)
/// The libraries whose comments are the reference, in the order to read in; the first folder of a path is the library's.
let libraries = [ "src/Cmcl.fsproj"; "study/Cmcl.Study.fsproj"; "report/Cmcl.Report.fsproj" ]

/// What the libraries' packages say of themselves.
let packages = libraries |> List.map (fun project -> project.Split('/')[0] + "/README.md")

let isLibrary (path: string) : bool = libraries |> List.exists (fun project -> path.Split('/')[0] = project.Split('/')[0])

let lines (path: string) : string list = File.ReadAllLines(full path) |> List.ofArray

/// A fenced block: the number of its first line, its language, what an HTML comment on the line above says ("" without), its lines.
type Block =
    { Page: string
      Line: int
      Language: string
      Note: string
      Lines: string list }

type Part =
    | Prose of number: int * text: string
    | Fenced of Block

let private noteOf (line: string) = Regex.Match(line, @"^<!-- (run|file \S+) -->$").Groups[1].Value

let rec private parts page note rest : Part list =
    match rest with
    | [] -> []
    | (i, line: string) :: rest when line.StartsWith "```" ->
        match List.tryFindIndex (fun (_, l: string) -> l.StartsWith "```") rest with
        | None -> failwith $"{page}({i + 1}): a block has no end"
        | Some length ->
            Fenced
                { Page = page
                  Line = i + 2
                  Language = line.Substring(3).Trim()
                  Note = note
                  Lines = rest |> List.take length |> List.map snd }
            :: parts page "" (List.skip (length + 1) rest)
    | (i, line) :: rest -> Prose(i + 1, line) :: parts page (noteOf line) rest

/// The parts of a page, named from the root of the tree.
let read (page: string) : Part list = parts page "" (List.indexed (lines page))

let blocks (page: string) : Block list =
    read page
    |> List.choose (function
        | Fenced block -> Some block
        | Prose _ -> None)

/// The lines outside of blocks, with their numbers.
let prose (page: string) : (int * string) list =
    read page
    |> List.choose (function
        | Prose(number, line) -> Some(number, line)
        | Fenced _ -> None)

/// The name that GitHub gives a heading.
let slug (heading: string) : string = Regex.Replace(heading.Trim().ToLowerInvariant(), @"[^\w\- ]", "").Replace(' ', '-')

/// A link to a file of the tree, from a page: group 1 is the file, group 2 the anchor.
let link = Regex @"\]\((?!\w+:)([^)#\s]*)(#[^)\s]*)?\)"
