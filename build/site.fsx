// What fsdocs leaves to do in output/site: formulas as MathML, so that they are drawn offline; headings under the names that links in
// the pages use; links to files of the tree.
#load "formulas.fsx"

open System.IO
open System.Net
open System.Text.RegularExpressions

let site = Path.Combine(__SOURCE_DIRECTORY__, "..", "output", "site")

let formula onItsOwn (m: Match) = Formulas.mathml onItsOwn (WebUtility.HtmlDecode m.Groups[1].Value)
let replace pattern (by: Match -> string) (html: string) = Regex.Replace(html, pattern, by, RegexOptions.Singleline)

for file in Directory.GetFiles(site, "*.html") do
    File.ReadAllText file
    |> replace @"<span class=""math"">\\\((.*?)\\\)</span>" (formula false)
    |> replace
        @"<table class=""pre""><tr><td class=""snippet""><pre class=""fssnip""><code lang=""math"">(.*?)</code></pre></td></tr></table>"
        (formula true)
    |> replace @"<a name=""([^""]*)"" class=""anchor"" href=""[^""]*""" (fun m ->
        let name = m.Groups[1].Value.ToLowerInvariant()
        $"<a name=\"{name}\" class=\"anchor\" href=\"#{name}\"")
    |> replace @"href=""\.\./(?=\w)" (fun _ -> "href=\"../../")
    |> fun html -> File.WriteAllText(file, html)
