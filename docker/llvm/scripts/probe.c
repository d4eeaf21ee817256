// Takes code objects and OpenCL sources through every part of comgr that the
// HIP runtime uses, and writes down all that comes out: the metadata, symbols
// and instructions of code objects; of sources the assembly and the executable
// code objects, made directly and from the assembly.
//
//   probe DIRECTORY PREFIX FILE...
//
// Results go to DIRECTORY. libLLVM must have been loaded from below PREFIX.
// Files are named by their target: gfx1100-anything.co, gfx1100-anything.cl.
#define _GNU_SOURCE
#include <amd_comgr/amd_comgr.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *subject = "";

static void fail(const char *what, const char *why) {
  fprintf(stderr, "probe: %s: %s: %s\n", subject, what, why);
  exit(1);
}

static void check(amd_comgr_status_t status, const char *what) {
  const char *why = "unknown status";
  if (status == AMD_COMGR_STATUS_SUCCESS)
    return;
  amd_comgr_status_string(status, &why);
  fail(what, why);
}

#define TRY(call) check(call, #call)

struct bytes {
  char *data;
  size_t size;
};

static struct bytes read_file(const char *path) {
  struct bytes b = {NULL, 0};
  FILE *f = fopen(path, "rb");
  if (!f || fseek(f, 0, SEEK_END))
    fail("read", path);
  b.size = (size_t)ftell(f);
  b.data = malloc(b.size + 1);
  rewind(f);
  if (!b.data || fread(b.data, 1, b.size, f) != b.size)
    fail("read", path);
  fclose(f);
  b.data[b.size] = 0;
  return b;
}

static FILE *create(const char *dir, const char *name, const char *suffix) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s%s", dir, name, suffix);
  FILE *f = fopen(path, "wb");
  if (!f)
    fail("create", path);
  return f;
}

static void done(FILE *f) {
  if (ferror(f) || fclose(f))
    fail("write", "the disk is full?");
}

static amd_comgr_data_t data_of(amd_comgr_data_kind_t kind, const char *name, struct bytes b) {
  amd_comgr_data_t d;
  TRY(amd_comgr_create_data(kind, &d));
  TRY(amd_comgr_set_data(d, b.size, b.data));
  TRY(amd_comgr_set_data_name(d, name));
  return d;
}

static struct bytes bytes_of(amd_comgr_data_t d) {
  struct bytes b;
  TRY(amd_comgr_get_data(d, &b.size, NULL));
  b.data = malloc(b.size + 1);
  if (!b.data)
    fail("allocate", "no memory");
  TRY(amd_comgr_get_data(d, &b.size, b.data));
  b.data[b.size] = 0;
  return b;
}

// --- code objects

static amd_comgr_status_t print_node(FILE *f, amd_comgr_metadata_node_t node, int depth);

struct place {
  FILE *f;
  int depth;
};

static amd_comgr_status_t print_entry(amd_comgr_metadata_node_t key, amd_comgr_metadata_node_t value, void *p) {
  struct place *at = p;
  amd_comgr_status_t s = print_node(at->f, key, at->depth);
  return s ? s : print_node(at->f, value, at->depth + 1);
}

static amd_comgr_status_t print_node(FILE *f, amd_comgr_metadata_node_t node, int depth) {
  amd_comgr_metadata_kind_t kind;
  struct place at = {f, depth};
  size_t n;
  TRY(amd_comgr_get_metadata_kind(node, &kind));
  switch (kind) {
  case AMD_COMGR_METADATA_KIND_MAP:
    return amd_comgr_iterate_map_metadata(node, print_entry, &at);
  case AMD_COMGR_METADATA_KIND_LIST:
    TRY(amd_comgr_get_metadata_list_size(node, &n));
    for (size_t i = 0; i < n; i++) {
      amd_comgr_metadata_node_t item;
      TRY(amd_comgr_index_list_metadata(node, i, &item));
      fprintf(f, "%*s%zu:\n", depth, "", i);
      print_node(f, item, depth + 1);
      TRY(amd_comgr_destroy_metadata(item));
    }
    return AMD_COMGR_STATUS_SUCCESS;
  case AMD_COMGR_METADATA_KIND_STRING: {
    TRY(amd_comgr_get_metadata_string(node, &n, NULL));
    char *text = malloc(n);
    TRY(amd_comgr_get_metadata_string(node, &n, text));
    fprintf(f, "%*s%s\n", depth, "", text);
    free(text);
    return AMD_COMGR_STATUS_SUCCESS;
  }
  default:
    return AMD_COMGR_STATUS_ERROR;
  }
}

static amd_comgr_status_t print_symbol(amd_comgr_symbol_t symbol, void *p) {
  size_t n;
  uint64_t value, size;
  amd_comgr_symbol_type_t type;
  TRY(amd_comgr_symbol_get_info(symbol, AMD_COMGR_SYMBOL_INFO_NAME_LENGTH, &n));
  char *name = malloc(n + 1);
  TRY(amd_comgr_symbol_get_info(symbol, AMD_COMGR_SYMBOL_INFO_NAME, name));
  TRY(amd_comgr_symbol_get_info(symbol, AMD_COMGR_SYMBOL_INFO_VALUE, &value));
  TRY(amd_comgr_symbol_get_info(symbol, AMD_COMGR_SYMBOL_INFO_SIZE, &size));
  TRY(amd_comgr_symbol_get_info(symbol, AMD_COMGR_SYMBOL_INFO_TYPE, &type));
  fprintf(p, "symbol %.*s %llx %llx %d\n", (int)n, name, (unsigned long long)value, (unsigned long long)size, (int)type);
  free(name);
  return AMD_COMGR_STATUS_SUCCESS;
}

struct code {
  FILE *f;
  struct bytes bytes;
};

static uint64_t read_code(uint64_t from, char *to, uint64_t size, void *p) {
  struct code *c = p;
  uint64_t left = from < c->bytes.size ? c->bytes.size - from : 0;
  uint64_t n = size < left ? size : left;
  memcpy(to, c->bytes.data + from, n);
  return n;
}

static void print_instruction(const char *instruction, void *p) { fprintf(((struct code *)p)->f, "%s\n", instruction); }

static void print_address(uint64_t address, void *p) { fprintf(((struct code *)p)->f, "address %llx\n", (unsigned long long)address); }

// Disassembles the beginning of the code section, found by its header.
static void disassemble(FILE *f, const char *isa, struct bytes object) {
  const uint64_t most = 16384;
  ElfW(Ehdr) *header = (void *)object.data;
  ElfW(Shdr) *sections = (void *)(object.data + header->e_shoff);
  amd_comgr_disassembly_info_t info;
  struct code code = {f, object};
  TRY(amd_comgr_create_disassembly_info(isa, read_code, print_instruction, print_address, &info));
  for (int i = 0; i < header->e_shnum; i++) {
    if (sections[i].sh_type != SHT_PROGBITS || !(sections[i].sh_flags & SHF_EXECINSTR))
      continue;
    uint64_t at = sections[i].sh_offset, size;
    uint64_t end = at + (sections[i].sh_size < most ? sections[i].sh_size : most);
    for (; at < end; at += size) {
      // Padding and constants between kernels are no instructions.
      if (amd_comgr_disassemble_instruction(info, at, &code, &size)) {
        fprintf(f, "no instruction\n");
        size = 4;
      }
    }
  }
  TRY(amd_comgr_destroy_disassembly_info(info));
}

static void read_object(const char *dir, const char *name, const char *isa, struct bytes object) {
  char found[256];
  size_t n = sizeof found;
  FILE *f = create(dir, name, ".txt");
  amd_comgr_metadata_node_t metadata;
  amd_comgr_data_t d = data_of(AMD_COMGR_DATA_KIND_EXECUTABLE, name, object);
  TRY(amd_comgr_get_data_isa_name(d, &n, found));
  if (strcmp(found, isa))
    fail("target of the code object", found);
  TRY(amd_comgr_get_data_metadata(d, &metadata));
  print_node(f, metadata, 0);
  TRY(amd_comgr_destroy_metadata(metadata));
  TRY(amd_comgr_iterate_symbols(d, print_symbol, f));
  disassemble(f, isa, object);
  TRY(amd_comgr_release_data(d));
  done(f);
}

// --- sources

static amd_comgr_action_info_t action_for(const char *isa, const char **options, size_t count) {
  amd_comgr_action_info_t info;
  TRY(amd_comgr_create_action_info(&info));
  TRY(amd_comgr_action_info_set_isa_name(info, isa));
  TRY(amd_comgr_action_info_set_language(info, AMD_COMGR_LANGUAGE_OPENCL_2_0));
  TRY(amd_comgr_action_info_set_option_list(info, options, count));
  TRY(amd_comgr_action_info_set_device_lib_linking(info, true));
  TRY(amd_comgr_action_info_set_logging(info, true));
  return info;
}

static amd_comgr_data_set_t act(amd_comgr_action_kind_t kind, amd_comgr_action_info_t info, amd_comgr_data_set_t in, const char *what) {
  amd_comgr_data_set_t out;
  TRY(amd_comgr_create_data_set(&out));
  amd_comgr_status_t status = amd_comgr_do_action(kind, info, in, out);
  size_t logs = 0;
  amd_comgr_data_t log;
  if (status && !amd_comgr_action_data_count(out, AMD_COMGR_DATA_KIND_LOG, &logs) && logs &&
      !amd_comgr_action_data_get_data(out, AMD_COMGR_DATA_KIND_LOG, 0, &log))
    fprintf(stderr, "%s\n", bytes_of(log).data);
  check(status, what);
  return out;
}

static void save(amd_comgr_data_set_t set, amd_comgr_data_kind_t kind, const char *dir, const char *name, const char *suffix) {
  size_t count;
  amd_comgr_data_t d;
  TRY(amd_comgr_action_data_count(set, kind, &count));
  if (count != 1)
    fail(suffix, "comgr did not make exactly one");
  TRY(amd_comgr_action_data_get_data(set, kind, 0, &d));
  struct bytes b = bytes_of(d);
  FILE *f = create(dir, name, suffix);
  if (b.size == 0 || fwrite(b.data, 1, b.size, f) != b.size)
    fail("write", suffix);
  done(f);
}

static void compile(const char *dir, const char *name, const char *isa, struct bytes source) {
  // The options are of the kinds that the HIP runtime gives.
  const char *front[] = {"-O3", "-cl-std=CL2.0", "-mcode-object-version=5"};
  const char *back[] = {"-O3", "-mcode-object-version=5", "-mllvm", "-amdgpu-internalize-symbols"};
  const char *assemble[] = {"-mcode-object-version=5"};
  amd_comgr_action_info_t info = action_for(isa, front, 3);
  amd_comgr_data_set_t set;
  TRY(amd_comgr_create_data_set(&set));
  TRY(amd_comgr_data_set_add(set, data_of(AMD_COMGR_DATA_KIND_SOURCE, "source.cl", source)));
  set = act(AMD_COMGR_ACTION_ADD_PRECOMPILED_HEADERS, info, set, "add the headers");
  set = act(AMD_COMGR_ACTION_COMPILE_SOURCE_TO_BC, info, set, "compile");
  set = act(AMD_COMGR_ACTION_LINK_BC_TO_BC, info, set, "link the bitcode");
  info = action_for(isa, back, 4);
  amd_comgr_data_set_t object = act(AMD_COMGR_ACTION_CODEGEN_BC_TO_RELOCATABLE, info, set, "generate code");
  amd_comgr_data_set_t assembly = act(AMD_COMGR_ACTION_CODEGEN_BC_TO_ASSEMBLY, info, set, "generate assembly");
  save(assembly, AMD_COMGR_DATA_KIND_SOURCE, dir, name, ".s");
  info = action_for(isa, assemble, 1);
  save(act(AMD_COMGR_ACTION_LINK_RELOCATABLE_TO_EXECUTABLE, info, object, "link"), AMD_COMGR_DATA_KIND_EXECUTABLE, dir, name, ".co");
  object = act(AMD_COMGR_ACTION_ASSEMBLE_SOURCE_TO_RELOCATABLE, info, assembly, "assemble");
  save(act(AMD_COMGR_ACTION_LINK_RELOCATABLE_TO_EXECUTABLE, info, object, "link the assembled"), AMD_COMGR_DATA_KIND_EXECUTABLE, dir, name, ".s.co");
}

// --- all of it

static int find_llvm(struct dl_phdr_info *info, size_t size, void *p) {
  (void)size;
  if (strstr(info->dlpi_name, "/libLLVM"))
    *(const char **)p = info->dlpi_name;
  return 0;
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: probe DIRECTORY PREFIX FILE...\n");
    return 2;
  }
  const char *llvm = "none";
  dl_iterate_phdr(find_llvm, &llvm);
  if (strncmp(llvm, argv[2], strlen(argv[2])))
    fail("libLLVM was loaded from", llvm);
  for (int i = 3; i < argc; i++) {
    char isa[256];
    const char *name = strrchr(argv[i], '/') ? strrchr(argv[i], '/') + 1 : argv[i];
    subject = name;
    snprintf(isa, sizeof isa, "amdgcn-amd-amdhsa--%.*s", (int)strcspn(name, "-"), name);
    struct bytes b = read_file(argv[i]);
    if (strlen(name) > 3 && !strcmp(name + strlen(name) - 3, ".cl"))
      compile(argv[1], name, isa, b);
    else
      read_object(argv[1], name, isa, b);
    free(b.data);
  }
  return 0;
}
